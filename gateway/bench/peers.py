"""Other LLM gateways, where they are installed: how each is found, configured and started, its own log off and on.

Each is looked for in the folders given, then in those of the variable BENCH_PEERS, then on PATH; a folder is a virtual
environment, its bin, or one with node_modules in it. One that is not there is left out, and `why_not` says so.
"""

import json
import os
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.bench.contenders import HOST, Contender

VARIABLE = "BENCH_PEERS"
# What a client sends; LiteLLM does not start with a weak one.
KEY = "sk-bench-3f9a7c1e5b2d4860a9c8e7f61b3d5a70"
UPSTREAM_KEY = "sk-bench-upstream"
# Portkey 1.15.2 answers every stream with a 500 on a later @hono/node-server.
LAST_GOOD_NODE_SERVER = (1, 14, 1)


@dataclass(frozen=True, slots=True)
class Found:
    """An executable and the version of its package."""

    exe: Path
    version: str


def peers(folder: Path, upstream: str, look_in: Sequence[Path]) -> list[Contender]:
    """Every gateway that is there, in each of its forms; their files go into `folder`. `upstream`: with its /v1."""
    found: list[Contender] = []
    if respan := find_python("respan-gateway", "respan_gateway", look_in):
        found += _respan(respan, folder, upstream)
    if litellm := find_python("litellm", "litellm", look_in):
        found += _litellm(litellm, folder, upstream)
    portkey = find_portkey(look_in)
    if portkey and not _portkey_fault(portkey):
        found += _portkey(portkey, upstream)
    return found


def why_not(look_in: Sequence[Path]) -> list[str]:
    """One line for each gateway that `peers` leaves out."""
    lines: list[str] = []
    for exe, dist in (("respan-gateway", "respan_gateway"), ("litellm", "litellm")):
        if find_python(exe, dist, look_in) is None:
            lines.append(f"{exe}: not installed")
    portkey = find_portkey(look_in)
    if portkey is None:
        lines.append("@portkey-ai/gateway: not installed")
    elif fault := _portkey_fault(portkey):
        lines.append(f"@portkey-ai/gateway {portkey.version}: {fault}")
    return lines


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _folders(look_in: Sequence[Path]) -> Iterator[Path]:
    """Where an executable may be, best first."""
    named = [Path(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    for base in [*look_in, *named]:
        yield from (base, base / "bin", base / ".bin", base / "node_modules" / ".bin")
    yield from (Path(part) for part in os.environ.get("PATH", "").split(os.pathsep) if part)


def find_python(exe: str, dist: str, look_in: Sequence[Path]) -> Found | None:
    """An executable of a Python package, the version read from its metadata, as to import LiteLLM takes seconds."""
    for base in _folders(look_in):
        path = base / exe
        if path.is_file() and os.access(path, os.X_OK):
            metas = [
                meta
                for home in (path.absolute().parent.parent, path.resolve().parent.parent)
                for meta in home.glob(f"lib/python*/site-packages/{dist}-*.dist-info")
            ]
            version = metas[0].name.removesuffix(".dist-info").rpartition("-")[2] if metas else "?"
            return Found(path.absolute(), version)
    return None


def find_portkey(look_in: Sequence[Path]) -> Found | None:
    """Portkey's executable: it is called just `gateway`, so only one inside @portkey-ai counts."""
    for base in _folders(look_in):
        path = base / "gateway"
        if path.is_file() and path.resolve().parts[-4:-1] == ("@portkey-ai", "gateway", "build"):
            return Found(path.resolve(), _version(path.resolve().parents[1] / "package.json"))
    return None


def _version(package: Path) -> str:
    """The version in a package.json."""
    return str(json.loads(package.read_text(encoding="utf-8"))["version"])


def _portkey_fault(found: Found) -> str:
    """What is wrong with the @hono/node-server that Portkey would load, or nothing."""
    for base in found.exe.parents:
        package = base / "node_modules" / "@hono" / "node-server" / "package.json"
        if package.is_file():
            version = _version(package)
            if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) <= LAST_GOOD_NODE_SERVER:
                return ""
            return f'streams fail on @hono/node-server {version}: npm "overrides" it with 1.14.1'
    return "no @hono/node-server"


def _respan(found: Found, folder: Path, upstream: str) -> list[Contender]:
    """Off, or a JSON line a call on stderr with the dashboard's history in memory."""
    result = []
    for form, log, ui in (("log off", "off", "false"), ("log on", "json", "true")):
        at = _free_port()
        config = folder / f"respan-{form.replace(' ', '-')}.toml"
        config.write_text(
            f'listen = "127.0.0.1:{at}"\nlog = "{log}"\nui = {ui}\nclient_keys = [{_quoted(KEY)}]\n\n'
            f'[providers.bench]\nformats = ["openai-chat"]\nbase_url = {_quoted(upstream)}\n'
            f"key = {_quoted(UPSTREAM_KEY)}\n\n"
            '[plugins.routing]\ndefault = "bench"\nlistings = false\n\n[network]\nproxy = false\n',
            encoding="utf-8",
        )
        name = f"respan-gateway {found.version}, {form}"
        command = [str(found.exe), "serve", "--config", str(config)]
        # Whatever the benchmark's own environment says; two of them may not be empty.
        env = {
            "RESPAN_CONFIG": str(config),
            "RESPAN_LISTEN": f"127.0.0.1:{at}",
            "RESPAN_LOG": log,
            "RESPAN_CLIENT_KEYS": "",
            "RESPAN_COLOR": "never",
        }
        headers = {"Authorization": f"Bearer {KEY}"}
        result.append(_peer(name, command, headers, env, at, "/healthz"))
    return result


CALLBACK = '''"""LiteLLM's custom callback: its standard logging payload, a JSON line a call, in BENCH_LITELLM_LOG."""

import json
import os

from litellm.integrations.custom_logger import CustomLogger


class Writer(CustomLogger):
    def __init__(self):
        super().__init__()
        self.file = open(os.environ["BENCH_LITELLM_LOG"], "a", buffering=1, encoding="utf-8")

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self.file.write(json.dumps(kwargs["standard_logging_object"], default=str) + "\\n")

    async_log_failure_event = async_log_success_event


writer = Writer()
'''


def _litellm(found: Found, folder: Path, upstream: str) -> list[Contender]:
    """Off, or a JSON line a call in a file by a custom callback."""
    module = "bench_litellm_jsonl"
    (folder / f"{module}.py").write_text(CALLBACK, encoding="utf-8")
    forms = [("log off", ""), ("log on", f"  callbacks: [{module}.writer]\n")]
    result = []
    for form, more in forms:
        at = _free_port()
        config = folder / f"litellm-{form.replace(' ', '-')}.yaml"
        config.write_text(
            'model_list:\n  - model_name: "*"\n    litellm_params:\n      model: "openai/*"\n'
            f"      api_base: {_quoted(upstream)}\n      api_key: {_quoted(UPSTREAM_KEY)}\n"
            "      input_cost_per_token: 0.000001\n      output_cost_per_token: 0.000002\n"
            "router_settings:\n  num_retries: 0\n  disable_cooldowns: true\n"
            "litellm_settings:\n  num_retries: 0\n" + more,
            encoding="utf-8",
        )
        env = {
            "LITELLM_MASTER_KEY": KEY,
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
            "LITELLM_LOCAL_BLOG_POSTS": "True",
            "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
            "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
            "DISABLE_ADMIN_UI": "True",
            "NO_PROXY": "127.0.0.1,localhost",
            "BENCH_LITELLM_LOG": str(folder / "litellm.jsonl"),
        }
        # An empty DATABASE_URL stops it.
        command = ["env", "-u", "DATABASE_URL", str(found.exe)]
        command += ["--config", str(config), "--host", "127.0.0.1", "--port", str(at)]
        command += ["--num_workers", "1", "--keepalive_timeout", "75"]
        name = f"LiteLLM {found.version}, {form}"
        headers = {"Authorization": f"Bearer {KEY}"}
        result.append(_peer(name, command, headers, env, at, "/health/liveliness"))
    return result


def _portkey(found: Found, upstream: str) -> list[Contender]:
    """Headless, or with its console, whose log is kept nowhere and made only while somebody reads it."""
    headers = {
        "Authorization": f"Bearer {UPSTREAM_KEY}",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": upstream,
    }
    env = {"NODE_ENV": "", "ENVIRONMENT": "", "REDIS_CONNECTION_STRING": "", "TRUSTED_CUSTOM_HOSTS": ""}
    result = []
    for form, more, log_path in (("log off", ["--headless"], ""), ("log on", [], "/log/stream")):
        at = _free_port()
        command = ["node", str(found.exe), f"--port={at}", *more]
        name = f"Portkey {found.version}, {form}"
        result.append(_peer(name, command, headers, env, at, "/", log_path))
    return result


def _peer(
    name: str,
    command: list[str],
    headers: dict[str, str],
    env: dict[str, str],
    port: int,
    ready_path: str,
    log_path: str = "",
) -> Contender:
    return Contender(
        name, command, headers=headers, env=env, port=port, ready_path=ready_path, is_peer=True, log_path=log_path
    )


def _quoted(text: str) -> str:
    """A string as TOML and YAML both read it."""
    return json.dumps(text)
