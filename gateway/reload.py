"""The settings in force, and how SIGHUP replaces them: read anew, checked, and taken over whole or not at all."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from gateway.app import LocalKey, local_key
from gateway.config import Section, Settings
from gateway.errors import ConfigError, GatewayError

log = logging.getLogger(__name__)


_AT_START = ("server", "store", "otlp")


class Configuration:
    """Where the settings come from, and those that are in force."""

    def __init__(self, load: Callable[[], Settings], tell_key: Callable[[LocalKey], None]) -> None:
        """`tell_key` is called with the key beside the database where `[[keys]]` name none: at the start, and later
        when it is made anew. Raises ConfigError and StoreError."""
        self._load = load
        self._tell_key = tell_key
        self.settings = load()
        self.local_key = local_key(self.settings)
        if self.local_key is not None:
            tell_key(self.local_key)

    def reload(self, take_over: Callable[[Settings], None]) -> None:
        """Reads the settings again and hands them on, with those of _AT_START as they were.

        The log tells what has changed, or every mistake; then the old settings stay in force.
        """
        old, old_key = self.settings, self.local_key
        try:
            read = self._load()
            new = read.model_copy(update={section: getattr(old, section) for section in _AT_START})
            key = local_key(new)
            if key is not None and key.is_new:
                self._tell_key(key)
            take_over(new)
        except (GatewayError, OSError) as error:
            for mistake in error.mistakes if isinstance(error, ConfigError) else [str(error)]:
                log.error("%s", mistake)
            log.error("Nothing was reloaded: the old settings stay in force.")
            return
        self.settings, self.local_key = new, key
        log.info(
            "Reloaded; changed are %s, %s and %s.",
            _number("key", _keys(old, old_key), _keys(new, key)),
            _number("upstream", _named(old.upstreams), _named(new.upstreams)),
            _number("price", old.prices, new.prices),
        )
        for section in _AT_START:
            for name in _differing(getattr(old, section), getattr(read, section)):
                log.warning("[%s] %s takes a restart.", section, name)


def _keys(settings: Settings, local: LocalKey | None) -> Mapping[str, object]:
    return _named(settings.keys) if local is None else {str(local.file): local.key}


def _named(sections: tuple[Any, ...]) -> Mapping[str, object]:
    return {section.name: section for section in sections}


def _number(what: str, old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """How many were added, taken out, changed or moved, in words."""
    changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    stayed = zip((name for name in old if name in new), (name for name in new if name in old), strict=True)
    number = len(changed | {name for name, now_there in stayed if name != now_there})
    return f"{number} {what}{'' if number == 1 else 's'}"


def _differing(old: Section, new: Section) -> list[str]:
    return [name for name in type(old).model_fields if getattr(old, name) != getattr(new, name)]
