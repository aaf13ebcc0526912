import random

import pytest

from u2pl.data.class_mapping import by_name, compose, read_mapping, to_lookup
from u2pl.errors import InputError

SOURCE = ("sky", "tree", "car", "bus", "traffic sign")
TARGET = ("road", "vehicle", "far", "sky")
CSV = "source,target\nsky,sky\ntree,far\ncar,vehicle\nbus,vehicle\ntraffic sign,\n"
EXPECTED = {"sky": "sky", "tree": "far", "car": "vehicle", "bus": "vehicle"}


@pytest.mark.parametrize(
    "text",
    [
        CSV,
        "\ufeff" + CSV,
        CSV.replace("\n", "\r\n"),
        CSV.replace(",", ";"),
        CSV.replace(",", "\t"),
        CSV.replace("traffic sign,\n", "traffic sign\n"),
        CSV.replace("traffic sign,\n", ""),
        "\n\n" + CSV.replace("car,vehicle", ' "car" , vehicle ') + "\n\n",
        "Target,note,Source\nsky,,sky\nfar,green,tree\nvehicle,,car\nvehicle,long,bus\n,,traffic sign\n",
        CSV + "car,vehicle\ntraffic sign,\n",
    ],
)
def test_files_as_people_write_them(tmp_path, text):
    path = tmp_path / "m.csv"
    path.write_bytes(text.encode())
    assert read_mapping(path, SOURCE, TARGET) == EXPECTED


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CSV.replace("car,vehicle", "cra,vehicle"), ("m.csv, line 4: 'cra' is no class of the source", "mean car?")),
        (CSV.replace("car,vehicle", "car,vehicel"), ("line 4: 'vehicel' is no class of the target", "mean vehicle?")),
        (CSV.replace("car,vehicle", "car,zzz"), ("'zzz'", "known: road, vehicle, far, sky")),
        (CSV.replace("\n", "\r\n").replace("bus,", "bsu,"), ("line 5", "bus?")),
        (CSV + ",sky\n", ("line 7: '' is no class of the source",)),
        (CSV + "car,far\n", ("line 7: 'car' has another target in line 4",)),
        (CSV + "traffic sign,far\n", ("line 7: 'traffic sign' has another target in line 6",)),
        (CSV.replace("source,target", "from,to"), ("has no column source and no column target", "source,target")),
        (CSV.replace("source,target", "source,to"), ("has no column target",)),
        ("", ("has no column",)),
        ("source,target\n", ("maps no class",)),
        ("source,target\ncar,\n", ("maps no class",)),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path, text, words):
    path = tmp_path / "m.csv"
    path.write_bytes(text.encode())
    with pytest.raises(InputError) as caught:
        read_mapping(path, SOURCE, TARGET)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes("source,target\ncafé,x".encode("latin-1"))
    with pytest.raises(InputError, match=r"m\.csv, line 2: cannot be read .it is not text in UTF-8.; give a csv file"):
        read_mapping(path, SOURCE, TARGET)


def test_by_name():
    assert by_name(("sky", "car"), ("car", "road", "sky")) == {"sky": "sky", "car": "car"}
    with pytest.raises(InputError) as caught:
        by_name(SOURCE, TARGET)
    message = str(caught.value)
    assert "tree, car, bus, traffic sign only in the source" in message
    assert "road, vehicle, far only in the target" in message
    assert "data.source.mapping=FILE.csv" in message
    assert "such as tree,road" in message
    with pytest.raises(InputError, match="a0, a1, a2, a3, a4 and 15 more only in the source"):
        by_name([f"a{index}" for index in range(20)], ["b"])
    with pytest.raises(InputError, match="none only in the target"):
        by_name(("sky", "car"), ("sky",))


def test_lookup_is_what_the_names_say():
    """Each mask value, name by name."""
    generator = random.Random(0)
    for _ in range(20):
        source = [f"s{index}" for index in range(generator.randint(1, 30))]
        target = [f"t{index}" for index in range(generator.randint(1, 30))]
        mapping = {name: generator.choice(target) for name in source if generator.random() < 0.7}
        lookup = to_lookup(mapping, source, target)
        assert len(lookup) == 256
        for value in range(256):
            if value == 255:
                expected = 255
            elif value >= len(source):
                expected = -1
            elif source[value] in mapping:
                expected = target.index(mapping[source[value]])
            else:
                expected = 255
            assert lookup[value] == expected


def test_compose():
    first = to_lookup({"a": "x", "b": "y"}, ("a", "b", "c"), ("x", "y"))
    second = to_lookup({"y": "v"}, ("x", "y"), ("u", "v"))
    both = compose(first, second)
    assert both is not None
    assert (both[:4], both[255]) == ((255, 1, 255, -1), 255)
    assert compose(None, first) is compose(first, None) is first
    assert compose(None, None) is None
