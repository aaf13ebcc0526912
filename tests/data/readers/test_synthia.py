import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from u2pl.data.readers.cityscapes import CLASSES as CITYSCAPES
from u2pl.data.readers.synthia import CLASSES, synthia
from u2pl.errors import InputError

#: As the data set's README has them.
IDS = {
    **{1: "sky", 2: "building", 3: "road", 4: "sidewalk", 5: "fence", 6: "vegetation", 7: "pole", 8: "car"},
    **{9: "traffic sign", 10: "person", 11: "bicycle", 12: "motorcycle", 15: "traffic light", 17: "rider"},
    **{19: "bus", 21: "wall"},
}


def png(values: np.ndarray, *, filtered: bool = False) -> bytes:
    """A png of 16 bits, (H, W, channels); with the filter that takes the difference to the row above."""
    height, width, channels = values.shape
    rows = values.astype(">u2").view(np.uint8).reshape(height, -1)
    above = np.vstack((np.zeros_like(rows[:1]), rows[:-1])) if filtered else np.zeros_like(rows)
    raw = b"".join(bytes([2 * filtered]) + row.tobytes() for row in rows - above)
    colour = {1: 0, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    pieces = ((b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data)) for tag, data in pieces
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def write(root, name: str, values: np.ndarray, **options) -> None:
    for folder in ("RGB", "GT/LABELS"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", values.shape[1::-1]).save(root / "RGB" / f"{name}.png")
    (root / "GT" / "LABELS" / f"{name}.png").write_bytes(png(values, **options))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("filtered", [False, True])
def test_the_first_channel_of_16_bits_holds_the_class(tmp_path, channels, filtered):
    random = np.random.default_rng(channels)
    values = random.integers(0, 65536, (6, 9, channels))  # the others are numbers of instances
    values[..., 0] = random.integers(0, 23, (6, 9))
    write(tmp_path, "0000000", values, filtered=filtered)
    source = synthia(root=tmp_path)
    mask = source.labeled[0].mask()
    assert mask.shape == (6, 9)
    for row, column in np.ndindex(6, 9):
        name = IDS.get(int(values[row, column, 0]))
        assert mask[row, column] == (255 if name is None else CLASSES.index(name))


def test_classes_are_those_of_cityscapes_that_it_shows():
    assert len(CLASSES) == 16
    assert set(CLASSES) == set(IDS.values()) == set(CITYSCAPES) - {"terrain", "truck", "train"}
    assert [name for name in CITYSCAPES if name in CLASSES] == list(CLASSES)


def test_the_13_classes_by_name(tmp_path):
    values = np.zeros((2, 4, 3), dtype=np.int64)
    values[0, :, 0] = (7, 8, 21, 3)
    write(tmp_path, "1", values)
    thirteen = [name for name in CLASSES if name not in ("wall", "fence", "pole")]
    source = synthia(root=tmp_path, classes=thirteen)
    assert source.classes == tuple(thirteen)
    expected = [255, thirteen.index("car"), 255, thirteen.index("road")]
    assert source.labeled[0].mask()[0].tolist() == expected


def test_a_class_beyond_a_byte_is_refused(tmp_path):
    values = np.full((2, 3, 3), 3)
    values[1, 2, 0] = 256 + 3  # its low byte is road
    write(tmp_path, "1", values)
    with pytest.raises(InputError, match=r"1\.png holds the value 259"):
        synthia(root=tmp_path).labeled[0].mask()


def test_what_is_wrong_names_the_file(tmp_path):
    write(tmp_path, "1", np.full((2, 3, 3), 3))
    mask = tmp_path / "GT" / "LABELS" / "1.png"
    content = mask.read_bytes()
    source = synthia(root=tmp_path)
    mask.write_bytes(content[:44])
    with pytest.raises(InputError, match=r"mask .*1\.png cannot be read"):
        source.labeled[0].mask()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(mask)  # colours of 8 bits
    with pytest.raises(InputError, match=r"1\.png holds colours: #010203"):
        source.labeled[0].mask()
    with pytest.raises(InputError, match="RGB holds no image"):
        synthia(root=tmp_path / "GT")
    (tmp_path / "GT" / "LABELS").rename(tmp_path / "GT" / "COLOR")
    with pytest.raises(InputError, match="holds COLOR but not LABELS"):
        synthia(root=tmp_path)
