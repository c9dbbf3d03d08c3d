"""The README says what is so."""

import re
import subprocess
from pathlib import Path

from gateway.cli import _parser
from gateway.web import routes

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_two_commands_stand_first_and_are_a_line_each() -> None:
    demo, tests = blocks("sh")[:2]
    assert demo == "python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/gateway demo\n"
    assert tests == "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/pytest\n"


def test_every_command_and_flag_is_in_the_readme() -> None:
    for usage in re.findall(r"^\| `gateway (\w+)(.*?)` \|", README, re.MULTILINE):
        shown = _parser().parse_args([usage[0], *re.findall(r"^ (ID|FILE)\b", usage[1])])
        flags = {name.replace("-", "_") for name in re.findall(r"--([\w-]+)", usage[1])}
        assert flags == {name for name in vars(shown) if name not in ("command", "trace_unique_id", "file", "files")}
    commands = set(re.findall(r"^\| `gateway (\w+)", README, re.MULTILINE))
    assert commands == {*("serve", "check", "audit", "spans", "trace", "export", "import", "prune", "demo", "bench")}


def test_every_route_is_in_the_readme() -> None:
    table = README[README.index("| route |") : README.index("Every path works")]
    for path in re.findall(
        r'(?:Keyed\([^,]+,|Open\([^,]+,|_asked\(|_read_only\() ?f?"([^"]+)"', Path(routes.__file__).read_text()
    ):
        shown = (
            path.replace("/v1/{rest:.+}", "/v1/…").replace("{{", "{").replace("}}", "}").replace("{_FILE}", "{file}")
        )
        for name, id_of in (("_ID", "unique"), ("_TRACE_ID", "trace_unique"), ("_CUSTOMER", ""), ("_THREAD", "")):
            shown = shown.replace(f"{{{name}}}", f"{{{id_of}_id}}" if id_of else f"{{{name[1:].lower()}_identifier}}")
        assert shown in table, path


def test_every_folder_of_the_code_is_in_the_readme() -> None:
    table = README[README.index("| folder |") :]
    for item in (ROOT / "gateway").iterdir():
        if item.is_dir() and not item.name.startswith("_"):
            assert f"`gateway/{item.name}/`" in table, item


def test_the_links_lead_somewhere() -> None:
    anchors = {re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in README.splitlines()
               if line.startswith("#")}  # fmt: skip
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in anchors
        elif not target.startswith("http"):
            assert (ROOT / target).exists()


def test_the_ci_script_runs_the_two_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    extract = re.search(r"< <\((awk .*)\)", script)
    assert extract
    found = subprocess.run(extract[1], shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert found == "".join(blocks("sh")[:2])
