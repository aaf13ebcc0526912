"""Weights of the released code against its network written again in ``released_network.py``."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from released_network import ReleasedNetwork, network, save_checkpoint
from u2pl.errors import InputError
from u2pl.networks import deeplabv3plus
from u2pl.networks.released import load_released, released_network
from u2pl.networks.tensor_file import read_tensor_file

#: Of an image in 0..255, as in the release's configurations of PASCAL VOC and of Cityscapes.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
NARROW = {"classes": 5, "width": 12, "embedding": 7}


@pytest.fixture(scope="module")
def student() -> ReleasedNetwork:
    return network(1, depth=50, **NARROW)


@pytest.fixture(scope="module")
def teacher() -> ReleasedNetwork:
    return network(2, depth=50, **NARROW)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, student: nn.Module, teacher: nn.Module) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("released") / "ckpt_best.pth", student, teacher)


@pytest.fixture(scope="module")
def small() -> dict[str, Tensor]:
    """A state dict that loads in no time; not to be written to."""
    return network(3, depth=18, classes=4, width=8, embedding=6).state_dict()


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def image(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(height)).float()


@torch.no_grad()
def assert_equal(imported: nn.Module, released: ReleasedNetwork, sizes: Iterable[tuple[int, int]]) -> None:
    """The same scores, embeddings and auxiliary scores for the same images."""
    imported.eval()
    for size in sizes:
        pixels = image(*size)
        expected = released((pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1))
        logits = F.interpolate(expected["pred"], size=size, mode="bilinear", align_corners=True)
        assert logits.std() > 0.5  # there is something to be equal to
        output = imported(pixels / 255)
        torch.testing.assert_close(output.logits, logits, atol=1e-4, rtol=0)
        torch.testing.assert_close(output.coarse, expected["pred"], atol=1e-4, rtol=0)
        if "rep" in expected:
            assert expected["rep"].std() > 0.5
            torch.testing.assert_close(output.embedding, expected["rep"], atol=1e-4, rtol=0)
        if "aux" in expected:
            auxiliary = imported.auxiliary(imported.encoder(imported.normalize(pixels / 255)).middle)
            torch.testing.assert_close(auxiliary, expected["aux"], atol=1e-4, rtol=0)


def contents(state: dict[str, Tensor]) -> Counter:
    """Every tensor of a state dict, whatever its name."""
    return Counter(
        (str(tensor.dtype), tuple(tensor.shape), tensor.numpy().tobytes())
        for key, tensor in state.items()
        if not key.startswith("normalize.")
    )


def test_the_teacher_of_a_checkpoint_gives_the_same_scores(checkpoint: Path, teacher: ReleasedNetwork) -> None:
    imported, options = load_released(checkpoint)
    # 313 rows: the map is high enough for the widest dilations; odd and even sides, and less than a cell of the map.
    assert_equal(imported, teacher, [(313, 41), (65, 47), (64, 96), (7, 33)])
    assert contents(imported.state_dict()) == contents(teacher.state_dict())
    assert imported.auxiliary is not None
    assert options["encoder"] == "resnet50"
    assert (options["num_classes"], options["channels"], options["low_level_channels"]) == (5, 12, 12)
    assert (options["embedding_dim"], options["auxiliary"], options["output_stride"]) == (7, True, 8)
    again = deeplabv3plus(**options)
    again.load_state_dict(imported.state_dict())


def test_the_student_on_request(checkpoint: Path, student: nn.Module) -> None:
    assert contents(load_released(checkpoint, network="student").network.state_dict()) == contents(student.state_dict())
    with pytest.raises(InputError, match="--network best: should be teacher or student"):
        load_released(checkpoint, network="best")


def test_a_supervised_checkpoint_has_neither_teacher_nor_representation(tmp_path: Path) -> None:
    only = network(4, depth=50, classes=3, width=8, embedding=None, auxiliary=False)
    path = save_checkpoint(tmp_path / "ckpt.pth", only, None)
    imported, options = load_released(path)
    assert_equal(imported, only, [(65, 47)])
    assert imported.projection is None
    assert imported.auxiliary is None
    assert (options["embedding_dim"], options["auxiliary"]) == (None, False)
    with pytest.raises(InputError) as error:
        load_released(path, network="teacher")
    assert "--network teacher" in one_line(error)
    assert "only the student" in one_line(error)


def test_another_output_stride_keeps_the_field_of_view(teacher: ReleasedNetwork) -> None:
    coarse = ReleasedNetwork(depth=50, **NARROW, output_stride=16).eval()
    coarse.load_state_dict(teacher.state_dict())
    assert_equal(released_network(teacher.state_dict(), source="it", output_stride=16).network, coarse, [(313, 41)])


@pytest.mark.slow
def test_resnet101_at_full_width() -> None:
    paper = network(5, depth=101, classes=19)
    imported, options = released_network(paper.state_dict(), source="it")
    assert_equal(imported, paper, [(313, 65), (129, 97)])
    assert contents(imported.state_dict()) == contents(paper.state_dict())
    assert (options["encoder"], options["num_classes"], options["embedding_dim"]) == ("resnet101", 19, 256)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_bare_state_dict(small: dict[str, Tensor], tmp_path: Path, prefix: str, suffix: str) -> None:
    from safetensors.torch import save_file

    path, state = tmp_path / f"bare{suffix}", {prefix + key: value for key, value in small.items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    imported, options = load_released(path)
    assert contents(imported.state_dict()) == contents(small)
    assert options["encoder"] == "resnet18"
    with pytest.raises(InputError, match=r"--network student: .* a single network"):
        load_released(path, network="student")


@pytest.mark.parametrize("depth", [18, 34])
def test_depth_of_basic_blocks(depth: int) -> None:
    state = network(6, depth=depth, classes=2, width=4, embedding=None).state_dict()
    imported, options = released_network(state, source="it")
    assert options["encoder"] == f"resnet{depth}"
    assert contents(imported.state_dict()) == contents(state)


def test_a_deeper_encoder_than_is_known() -> None:
    with torch.device("meta"):
        state = ReleasedNetwork(depth=152, classes=21).state_dict()
    with pytest.raises(InputError) as error:
        released_network(state, source="ckpt.pth")
    message = one_line(error)
    assert message.startswith("ckpt.pth: its encoder has 3, 8, 36, 3 bottleneck blocks in its stages (ResNet-152)")
    assert "resnet101" in message


@pytest.mark.parametrize(
    "key",
    [
        "encoder.conv1.4.running_var",
        "encoder.layer2.0.downsample.0.weight",
        "encoder.layer4.1.bn2.num_batches_tracked",
        "decoder.aspp.conv1.1.weight",
        "decoder.aspp.conv5.1.bias",
        "decoder.head.0.weight",
        "decoder.classifier.8.weight",
        "decoder.classifier.8.bias",
        "decoder.representation.8.weight",
        "auxor.aux.4.bias",
    ],
)
def test_a_missing_tensor_is_named(small: dict[str, Tensor], key: str) -> None:
    with pytest.raises(InputError) as error:
        released_network({name: value for name, value in small.items() if name != key}, source="ckpt.pth")
    assert one_line(error).startswith("ckpt.pth")
    assert key in one_line(error)


@pytest.mark.parametrize(
    "key", ["decoder.extra.weight", "encoder.fc.weight", "encoder.layer4.1.conv9.weight", "normalize.mean", "aux.x"]
)
def test_a_foreign_tensor_is_named(small: dict[str, Tensor], key: str) -> None:
    with pytest.raises(InputError, match="1 unexpected") as error:
        released_network({**small, key: torch.zeros(2)}, source="ckpt.pth")
    assert key in one_line(error)


def test_tensors_of_another_shape_are_named(small: dict[str, Tensor]) -> None:
    with pytest.raises(InputError) as error:
        released_network({**small, "decoder.low_conv.0.bias": torch.zeros(9)}, source="ckpt.pth")
    assert "decoder.low_conv.0.bias is (9,), not (8,)" in one_line(error)
    with pytest.raises(InputError) as error:
        released_network({**small, "decoder.aspp.conv2.0.weight": torch.zeros(9, 512, 1, 1)}, source="ckpt.pth")
    assert "its ASPP has 9 channels and its decoder 8" in one_line(error)
    with pytest.raises(InputError, match=r"decoder\.head\.0\.weight is \(\), not"):
        released_network({**small, "decoder.head.0.weight": torch.zeros(())}, source="ckpt.pth")


def test_networks_of_others(small: dict[str, Tensor]) -> None:
    with pytest.raises(InputError) as error:
        released_network({"layer1.0.conv1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, source="ckpt.pth")
    assert "they begin with layer1, fc" in one_line(error)
    plain = {key: value for key, value in small.items() if "low_conv" not in key}  # the release's DeepLabv3
    with pytest.raises(InputError, match=r"7 tensors missing \(decoder\.low_conv\.0\.weight"):
        released_network(plain, source="ckpt.pth")


class Code:
    """An object whose unpickling writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (str(self.path), "w"))


def test_code_in_a_checkpoint_does_not_run(small: dict[str, Tensor], tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", tmp_path / "ckpt.pth"
    hidden = np.empty((), dtype=object)
    hidden[()] = Code(ran)
    for content in ({"model_state": small, "best_miou": Code(ran)}, {"model_state": small, "best_miou": hidden}):
        torch.save(content, path)
        with pytest.raises(InputError, match="Python objects, which u2pl does not load") as error:
            load_released(path)
        assert one_line(error).startswith(str(path))
        path.write_bytes(pickle.dumps({"epoch": 1, "best_miou": content["best_miou"]}))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a warning would be a second line
            with pytest.raises(InputError):
                load_released(path)
    assert not ran.exists()
    pickle.loads(path.read_bytes())  # it would have run
    assert ran.exists()


@pytest.mark.parametrize("score", [np.float64(0.75), np.float32(0.75), np.int64(3), 0.75, 0])
@pytest.mark.parametrize("module", [b"numpy._core", b"numpy.core"])
def test_scores_of_numpy_1_and_2_are_read(tmp_path: Path, score: float, module: bytes) -> None:
    torch.save({"best_miou": score, "a": torch.ones(2)}, tmp_path / "now.pth")
    with zipfile.ZipFile(tmp_path / "now.pth") as now, zipfile.ZipFile(tmp_path / "then.pth", "w") as then:
        for name in now.namelist():
            content = now.read(name)
            for other in (b"numpy._core", b"numpy.core"):
                content = content.replace(other + b".multiarray\n", module + b".multiarray\n")
            then.writestr(name, content)
    content = read_tensor_file(tmp_path / "then.pth", source="it")
    assert isinstance(content, dict)
    assert content["best_miou"] == score


def test_files_that_are_no_checkpoint(small: dict[str, Tensor], checkpoint: Path, tmp_path: Path) -> None:
    whole = checkpoint.read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "start.pth").write_bytes(whole[:1000])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("<html>quota exceeded</html>\n")
    (tmp_path / "folder.pth").mkdir()
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    torch.save({"model_state": {}}, tmp_path / "nothing.pth")
    torch.save({"model_state": {**small, "epoch": 3}}, tmp_path / "mixed.pth")
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == 9
    for name in [*names, "missing.pth"]:
        with pytest.raises(InputError) as error:
            load_released(tmp_path / name)
        assert one_line(error).startswith(str(tmp_path / name))
