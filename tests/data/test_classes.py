import pytest

from u2pl.data.classes import keep, read_classes
from u2pl.data.files import INVALID
from u2pl.errors import InputError


def test_classes_tolerate_bom_crlf_and_blank_lines(tmp_path):
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfsky\r\n\r\ntraffic light \r\n")
    assert read_classes(tmp_path / "classes.txt") == ("sky", "traffic light")


@pytest.mark.parametrize("content", ["\n \n", "a\nb\na\n", "\n".join(map(str, range(256)))])
def test_bad_list_of_classes_names_the_file(tmp_path, content):
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(InputError, match=r"classes\.txt") as caught:
        read_classes(tmp_path / "classes.txt")
    assert "\n" not in str(caught.value)


def test_keep_follows_the_given_order():
    names, lookup = keep(("background", "cow", "cat", "dog"), ("background", "cat", "cow"))
    assert names == ("background", "cat", "cow")
    assert lookup[:4] == (0, 2, 1, 255)
    assert set(lookup[4:255]) == {INVALID}
    assert lookup[255] == 255
    assert len(lookup) == 256


@pytest.mark.parametrize("kept", [None, ("a", "b")])
def test_keep_everything_needs_no_lookup(kept):
    assert keep(("a", "b"), kept) == (("a", "b"), None)


@pytest.mark.parametrize(("kept", "hint"), [(("a", "x"), "'x'"), (("a", "a"), "'a'"), ((), "empty")])
def test_bad_choice_of_classes(kept, hint):
    with pytest.raises(InputError, match=f"classes: .*{hint}"):
        keep(("a", "b"), kept)
