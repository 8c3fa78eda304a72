"""The settings that all answers of a file share."""

import json

from ctxcache.cli.batch.settings import Settings

SETTINGS = Settings.of("m", "manual", {"temperature": 0.5, "stop": ["a"]})


def test_fields_are_no_difference() -> None:
    """The fields of a line, read back from JSON, are those of the same settings."""
    assert SETTINGS.difference(json.loads(json.dumps(SETTINGS.fields()))) == ""


def test_no_sampling_is_no_field() -> None:
    """Without sampling options a line has no field for them."""
    plain = Settings.of("m", "manual", {})
    assert SETTINGS.difference(Settings.of("m", "manual", {}).fields()) == "different sampling options (none)"
    assert "sampling" not in plain.fields()
    assert plain.difference(plain.fields()) == ""


def test_each_difference() -> None:
    """The first difference is named, with the old value where that can be shown."""
    fields = SETTINGS.fields()
    assert SETTINGS.difference({}) == "a different prefix"
    assert Settings.of("m", "manual ", SETTINGS.sampling).difference(fields) == "a different prefix"
    assert Settings.of("n", "manual", SETTINGS.sampling).difference(fields) == 'a different model ("m")'
    other = Settings.of("m", "manual", {"temperature": 0.5}).difference(fields)
    assert other == 'different sampling options ({"temperature": 0.5, "stop": ["a"]})'


def test_long_values_are_cut() -> None:
    """A long value is shown by its beginning."""
    fields = Settings.of("m", "manual", {"stop": ["x" * 1000]}).fields()
    difference = SETTINGS.difference(fields)
    assert difference.endswith("xxx...)")
    assert len(difference) < 120


def test_prefix_is_not_shown() -> None:
    """Of the prefix only a hash is kept."""
    assert "manual" not in repr(SETTINGS)
