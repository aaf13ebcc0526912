"""What the keys of a configuration become."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from u2pl.build import (
    build_batches,
    build_class_share,
    build_diagnosis,
    build_method,
    build_negative_keys,
    build_network,
    build_optimizer,
    build_scheduler,
    build_source,
)
from u2pl.build.method import build_contrast, build_strong_views
from u2pl.config.overrides import load_config
from u2pl.config.schema import Config
from u2pl.data.files import CachedSample
from u2pl.errors import InputError
from u2pl.methods import U2PL, FixMatch, LambdaU, MeanTeacher, ReliableShare, Schedule, Supervised
from u2pl.methods.extras.alignment import AlignPseudoLabels
from u2pl.methods.extras.class_weights import ClassWeightCorrection
from u2pl.methods.extras.denoising import DenoisePseudoLabels
from u2pl.methods.extras.feature_dropout import FeatureDropoutLoss
from u2pl.methods.extras.image_prior import AddImagePrior
from u2pl.methods.extras.negative_learning import NegativeLearningLoss
from u2pl.methods.tags import ClassificationLoss
from u2pl.networks.adapter import SmpNetwork
from u2pl.networks.deeplabv3plus import DeepLabV3Plus
from u2pl.pixels import ClassMix, CutMix, CutOut, NoMixing, PrototypicalDenoising, Reliability
from u2pl.pixels.losses import BalancedCrossEntropy, CrossEntropy, OhemCrossEntropy, SymmetricCrossEntropy
from u2pl.pixels.reliability import ConfidenceThreshold

SCENES = ("data.train=6", "data.val=2", "data.labeled=2", "data.height=48", "data.width=64", "data.workers=0")
NETWORK = ("network.channels=8", "network.low_level_channels=8", "network.embedding_dim=6")


def config(*overrides: str) -> Config:
    return load_config("scenes", [*SCENES, *NETWORK, *overrides])


def parts_of(parts: nn.ModuleList, kind: type) -> list[Any]:
    return [part for part in parts if isinstance(part, kind)]


class Two(nn.Module):
    """An encoder and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Linear(2, 3), nn.Linear(3, 2)
        self.encoder_parameters, self.head_parameters = self.encoder.parameters, self.head.parameters


def test_source_gets_its_keys() -> None:
    source = build_source(config("data.cache=false").data, seed=0)
    assert (len(source.labeled), len(source.unlabeled), len(source.val)) == (2, 4, 2)
    assert source.labeled[0].image().shape == (3, 48, 64)
    other = build_source(config("data.cache=false").data, seed=1)
    assert not torch.equal(source.labeled[0].image(), other.labeled[0].image())
    assert isinstance(build_source(config("data.cache=true").data, seed=0).labeled[0], CachedSample)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data.root=here",), r"^data\.root: is not used with data\.name=scenes"),
        (("data.name=folder",), r"^data\.root: is needed for data\.name=folder"),
        (("data.name=folder", "data.root=x"), r"^data\.\w+: is not used with data\.name=folder"),
    ],
)
def test_keys_without_meaning_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_source(config(*overrides).data, seed=0)


def test_a_validation_folder_may_have_a_number_for_its_name(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("2011/a", "2012/b"):
        for kind, mode in {"images": "RGB", "masks": "L"}.items():
            path = tmp_path / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, (8, 8)).save(path)
    data = Config.model_validate({"data": {"name": "folder", "root": str(tmp_path), "val": 2012}}).data
    assert [sample.name for sample in build_source(data, seed=0).val] == ["2012/b"]


def test_networks() -> None:
    paper = build_network(config("network.output_stride=8", "network.auxiliary=true"), 5)
    assert isinstance(paper, DeepLabV3Plus)
    output = paper.train()(torch.rand(2, 3, 32, 48))
    assert output.logits.shape == (2, 5, 32, 48)
    assert output.embedding.shape[1] == 6
    assert output.auxiliary.shape == (2, 5, 32, 48)

    plain = Config.model_validate(
        {
            "network": {"name": "smp", "architecture": "FPN", "encoder": "resnet18", "embedding_dim": 7},
            "method": {"name": "u2pl"},
        }
    )
    network = build_network(plain, 3)
    assert isinstance(network, SmpNetwork)
    assert network.eval()(torch.rand(1, 3, 32, 32)).embedding.shape[1] == 7


@pytest.mark.parametrize("method", ["supervised", "mean_teacher"])
def test_no_projection_head_where_no_method_trains_it(method: str) -> None:
    network = build_network(config(f"method.name={method}"), 4)
    assert network.eval()(torch.rand(1, 3, 32, 32)).embedding is None


def test_network_keys_without_meaning_are_refused() -> None:
    with pytest.raises(InputError, match=r"^network\.architecture: is not used with network\.name=deeplabv3plus"):
        build_network(config("network.architecture=Unet"), 4)
    with pytest.raises(InputError, match=r"^network\.\w+: is not used with|^network\.\w+: no option"):
        build_network(config("network.name=smp", "network.deep_stem=true"), 4)


def test_methods() -> None:
    network = build_network(config(), 4)
    built = {
        name: build_method(config(f"method.name={name}").method, network, num_classes=4, embedding_dim=6)
        for name in ("supervised", "mean_teacher", "u2pl")
    }
    assert type(built["supervised"]) is Supervised
    assert type(built["mean_teacher"]) is MeanTeacher
    assert built["mean_teacher"].contrast is None
    assert type(built["u2pl"]) is U2PL
    assert built["u2pl"].contrast is not None


def test_labels_and_pseudo_labels_are_balanced_each_by_its_own_key() -> None:
    def build(*overrides: str) -> Any:
        return build_method(config(*overrides).method, Two(), num_classes=4, embedding_dim=6)

    labels, pseudo = build("method.supervised_loss.name=balanced"), build("method.unsupervised_loss.name=balanced")
    assert (labels.label_loss, labels.pseudo_label_loss) == (BalancedCrossEntropy(), CrossEntropy())
    assert (pseudo.label_loss, pseudo.pseudo_label_loss) == (CrossEntropy(), BalancedCrossEntropy())
    assert build("method.name=fixmatch", "method.supervised_loss.name=balanced").label_loss == BalancedCrossEntropy()
    key, chosen = r"method\.unsupervised_loss\.reverse_weight", r"method\.unsupervised_loss\.name=balanced"
    with pytest.raises(InputError, match=f"^{key}: is not used with {chosen}; leave it out$"):
        build("method.unsupervised_loss.name=balanced", "method.unsupervised_loss.reverse_weight=0.3")


def test_a_teacher_of_balanced_losses_is_corrected_by_all_labeled_pixels() -> None:
    chosen = config("method.supervised_loss.name=balanced", "method.unsupervised_loss.name=balanced")
    source = build_source(chosen.data, seed=0)
    values = [value for sample in source.labeled for value in sample.mask().flatten().tolist() if value != 255]
    share = build_class_share(chosen.method, source)
    assert share is not None
    expected = [values.count(index) / len(values) for index in range(len(source.classes))]
    torch.testing.assert_close(share, torch.tensor(expected))
    method = build_method(chosen.method, Two(), num_classes=len(source.classes), embedding_dim=6, class_share=share)
    weights = [1 / math.log(1.02 + each) for each in expected]
    (correction,) = parts_of(method.refiners, ClassWeightCorrection)
    torch.testing.assert_close(correction.shift, torch.tensor([[-math.log(weight) for weight in weights]]))


@pytest.mark.parametrize(
    "overrides",
    [
        ("method.supervised_loss.name=balanced",),
        ("method.unsupervised_loss.name=balanced",),
        ("method.supervised_loss.name=ohem", "method.unsupervised_loss.name=balanced"),
        ("method.name=supervised", "method.supervised_loss.name=balanced", "method.unsupervised_loss.name=balanced"),
    ],
)
def test_no_other_teacher_is_corrected(overrides: tuple[str, ...]) -> None:
    chosen = config(*overrides)
    assert build_class_share(chosen.method, build_source(chosen.data, seed=0)) is None


def test_without_labels_all_classes_are_alike() -> None:
    chosen = config("method.supervised_loss.name=balanced", "method.unsupervised_loss.name=balanced")
    share = build_class_share(chosen.method, replace(build_source(chosen.data, seed=0), labeled=[]))
    assert share is not None
    assert not share.any()


def test_method_options_arrive() -> None:
    overrides = (
        *(
            "method.reliability.alpha=0.3",
            "method.reliability.min_confidence=0.6",
            "method.schedule.warmup=0.1",
            "method.schedule.ramp=0.4",
        ),
        *(
            "method.weighting.maximum=3",
            "method.teacher.ema_decay=0.9",
            "method.teacher.passes=2",
            "method.supervised_loss.name=ohem",
        ),
        *("method.supervised_loss.threshold=0.6", "method.supervised_loss.min_kept=5", "method.mixing.name=classmix"),
    )
    method = build_method(config(*overrides).method, Two(), num_classes=4, embedding_dim=6)
    assert isinstance(method, U2PL)
    assert method.reliability == Reliability(0.3, min_confidence=0.6)
    assert method.schedule == Schedule(warmup=0.1, ramp=0.4)
    assert method.weighting == LambdaU(3.0)
    assert (method.teacher.ema_decay, method.teacher.passes) == (0.9, 2)
    assert method.mix.mixing == ClassMix(4)
    loss = method.label_loss
    assert isinstance(loss, OhemCrossEntropy)
    assert (loss.threshold, loss.min_kept) == (0.6, 5)
    unbounded = build_method(config("method.weighting.maximum=null").method, Two(), num_classes=4, embedding_dim=6)
    assert unbounded.weighting == LambdaU(None)
    shared = config("method.weighting.name=reliable_share").method
    assert build_method(shared, Two(), num_classes=4, embedding_dim=6).weighting == ReliableShare()


@pytest.mark.parametrize(("name", "kind"), [("cutmix", CutMix), ("classmix", ClassMix), ("cutout", CutOut)])
def test_mixing(name: str, kind: type) -> None:
    assert type(build_strong_views(config(f"method.mixing.name={name}").method, 4).mixing) is kind


def test_contrast_options_arrive() -> None:
    overrides = (
        *(
            "method.negative_keys.low_rank=2",
            "method.negative_keys.high_rank=6",
            "method.contrast.min_probability=0.4",
            "method.contrast.anchors=7",
        ),
        *(
            "method.contrast.negatives=9",
            "method.contrast.temperature=0.2",
            "method.contrast.bank_size=40",
            "method.contrast.background_bank_size=60",
        ),
        "method.contrast.keys_per_step=8",
    )

    def gather(keys: torch.Tensor, keep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return keys, keep

    contrast = build_contrast(config(*overrides).method, 8, 6, gather)
    assert (*contrast.negative_keys.ranks(8), contrast.min_probability) == (2, 6, 0.4)
    assert (contrast.anchors, contrast.negatives, contrast.temperature, contrast.keys_per_step) == (7, 9, 0.2, 8)
    assert contrast.bank.capacity.tolist() == [60, *[40] * 7]
    assert contrast.bank.keys.shape[1] == 6
    assert contrast.gather is gather


def test_more_keys_than_a_queue_holds_are_refused() -> None:
    with pytest.raises(InputError, match=r"^method\.contrast\.keys_per_step: 50 keys do not fit a queue of 40"):
        build_contrast(config("method.contrast.bank_size=40", "method.contrast.keys_per_step=50").method, 8, 6)


@pytest.mark.parametrize(
    ("num_classes", "low", "high", "fits"),
    [
        (2, None, None, True),
        (21, None, None, True),
        (4, 3, 4, True),
        (4, 4, 4, False),
        (4, 1, 5, False),
        (4, 0, 3, False),
    ],
)
def test_ranks(num_classes: int, low: int | None, high: int | None, fits: bool) -> None:
    keys = {"method.negative_keys.low_rank": low, "method.negative_keys.high_rank": high}
    method = config().with_values(keys).method
    if fits:
        build_negative_keys(method, num_classes)
        build_contrast(method, num_classes, 4)
    else:
        with pytest.raises(InputError, match=r"^method\.negative_keys: low_rank and high_rank"):
            build_negative_keys(method, num_classes)


def test_one_class_has_no_rank_to_be_sure_of() -> None:
    with pytest.raises(InputError, match=r"^method\.negative_keys: low_rank and high_rank: 1 and 1"):
        build_negative_keys(config("method.negative_keys.rank_threshold=false").method, 1)


def test_adaptive_mixing_shares_one_confidence() -> None:
    method = build_method(config("method.mixing.name=ael").method, Two(), num_classes=5, embedding_dim=3)
    assert method.mix.mixing.confidence is method.mix.copy_paste.confidence is method.mix.class_confidence
    for name in ("fixmatch", "unimatch"):
        wanted = config("method.mixing.name=ael", f"method.name={name}").method
        with pytest.raises(InputError, match=r"method\.mixing\.name: ael needs mean_teacher or u2pl"):
            build_method(wanted, Two(), num_classes=5, embedding_dim=3)


def test_baselines_and_the_contrast_switch() -> None:
    def built(*overrides: str) -> Any:
        return build_method(config(*overrides).method, Two(), num_classes=5, embedding_dim=3)

    assert type(built("method.name=fixmatch", "method.threshold=0.8")) is FixMatch
    assert built("method.name=unimatch", "method.threshold=0.8").reliability == ConfidenceThreshold(0.8)
    assert built("method.contrast=false").contrast is None
    assert built("method.reliability.dynamic=false", "method.negative_keys.pixels=all").negative_keys.pixels == "all"
    assert not built("method.reliability.dynamic=false").reliability.dynamic
    (perturbed,) = parts_of(built("method.feature_dropout=true").further_losses, FeatureDropoutLoss)
    assert perturbed.drops_features
    assert built("method.negative_keys.rank_threshold=false").contrast.negative_keys.ranks(5) == (1, 5)
    views = [
        config(f"method.name={name}", "method.strong_views.number=2").method.strong_views_of_an_image
        for name in ("fixmatch", "u2pl")
    ]
    assert [*views, config("method.name=unimatch").method.strong_views_of_an_image] == [1, 2, 2]
    assert isinstance(built("method.mixing.name=none").mix.mixing, NoMixing)


def test_options_for_few_and_noisy_labels_arrive() -> None:
    def built(*overrides: str) -> Any:
        return build_method(config(*overrides).method, Two(), num_classes=8, embedding_dim=3, total=total)

    def total(tensor: Tensor) -> Tensor:
        return tensor

    off = built()
    assert [type(refiner) for refiner in off.refiners] == [AddImagePrior]  # of which a batch has none
    assert list(off.further_losses) == []
    assert off.contrast.prototypes is None
    assert isinstance(off.pseudo_label_loss, CrossEntropy)
    on = (
        "method.reliability.class_wise=true",
        "method.alignment=true",
        "method.unsupervised_loss.name=symmetric",
        "method.unsupervised_loss.reverse_weight=0.3",
        "method.loss_weights.negative=0.5",
    )
    for method in (
        built(*on, "method.negative_keys.low_rank=2"),
        built(*on, "method.negative_keys.low_rank=2", "method.name=mean_teacher"),
    ):
        assert method.reliability.class_wise
        (aligned,) = parts_of(method.refiners, AlignPseudoLabels)
        assert aligned.alignment.reduce is total
        assert len(aligned.alignment.labeled) == 8
        assert isinstance(method.pseudo_label_loss, SymmetricCrossEntropy)
        assert method.pseudo_label_loss.reverse_weight == 0.3
        assert ranks_of_negative_learning(method) == (2, 8)
    every = built("method.loss_weights.negative=1", "method.negative_keys.rank_threshold=false")
    assert ranks_of_negative_learning(every) == (1, 8)


@pytest.mark.parametrize("name", ["supervised", "fixmatch", "unimatch", "mean_teacher", "u2pl", "weak_u2pl"])
@pytest.mark.parametrize("loss", ["cross_entropy", "ohem", "balanced"])
def test_what_is_exchanged_between_processes_reaches_every_part(name: str, loss: str) -> None:
    def built(**options: Any) -> Any:
        overrides = [f"method.name={name}", f"method.supervised_loss.name={loss}", "method.loss_weights.negative=1"]
        method = build_method(config(*overrides).method, Two(), num_classes=8, embedding_dim=3, **options)
        return method.u2pl if name == "weak_u2pl" else method

    several, one = built(total=lambda tensor: tensor * 4, processes=4), built()
    averages = {"label_loss", "pseudo_label_loss", "weighting"} & set(vars(several))
    assert averages >= ({"label_loss"} if name == "supervised" else {"label_loss", "pseudo_label_loss", "weighting"})
    for part in averages:
        assert getattr(several, part).average(torch.tensor(3.0)) == 3
        assert getattr(one, part).average is None
    if loss == "ohem":
        assert several.label_loss.total is not None
    if name in ("mean_teacher", "u2pl", "weak_u2pl"):
        assert several.reliability.total(torch.tensor(3.0)) == 12
        assert one.reliability.total is None
        (negative,) = parts_of(several.further_losses, NegativeLearningLoss)
        assert negative.negative_learning.average(torch.tensor(3.0)) == 3
    if name == "weak_u2pl":
        (tags,) = parts_of(several.further_losses, ClassificationLoss)
        assert tags.average(torch.tensor(3.0)) == 3


def ranks_of_negative_learning(method: Any) -> tuple[int, int]:
    (loss,) = parts_of(method.further_losses, NegativeLearningLoss)
    return loss.negative_learning.negative_keys.ranks(8)


@pytest.mark.parametrize(("prototypes", "denoise"), [(True, False), (False, True), (True, True)])
def test_prototypes_and_denoising(prototypes: bool, denoise: bool) -> None:
    overrides = (f"method.prototypes={prototypes}", f"method.denoising={denoise}")
    overrides += ("method.denoising.temperature=0.5",) if denoise else ()
    method = build_method(config(*overrides).method, Two(), num_classes=8, embedding_dim=3)
    assert isinstance(method, U2PL)
    assert method.contrast is not None
    assert method.contrast.prototypes.value.shape == (8, 3)
    assert method.contrast.prototype_positives == prototypes
    denoising = [refiner.denoising for refiner in parts_of(method.refiners, DenoisePseudoLabels)]
    assert denoising == ([PrototypicalDenoising(method.contrast.prototypes, 0.5)] if denoise else [])
    for baseline in ("method.name=mean_teacher", "method.contrast=false"):  # no embedding, no prototype
        plain = build_method(config(*overrides, baseline).method, Two(), num_classes=8, embedding_dim=3)
        assert plain.contrast is None
        assert not parts_of(plain.refiners, DenoisePseudoLabels)


def test_what_needs_ranks() -> None:
    assert config().method.uses_negative_keys
    for name, needed in {"mean_teacher": True, "u2pl": True, "fixmatch": False, "supervised": False}.items():
        few = config(f"method.name={name}", "method.contrast=false", "method.loss_weights.negative=1").method
        assert few.uses_negative_keys == needed
    assert not config("method.contrast=false").method.uses_negative_keys
    method = config(
        "method.name=mean_teacher", "method.loss_weights.negative=1", "method.negative_keys.low_rank=4"
    ).method
    with pytest.raises(InputError, match=r"^method\.negative_keys: low_rank and high_rank"):
        build_method(method, Two(), num_classes=4, embedding_dim=3)


def test_parameter_groups() -> None:
    network = Two()
    train = config("train.lr=0.1", "train.head_lr_factor=10", "train.optimizer=sgd", "train.weight_decay=0.5").train
    optimizer = build_optimizer(train, network)
    assert isinstance(optimizer, SGD)
    encoder, head = optimizer.param_groups
    assert {id(p) for p in encoder["params"]} == {id(p) for p in network.encoder.parameters()}
    assert {id(p) for p in head["params"]} == {id(p) for p in network.head.parameters()}
    assert (encoder["lr"], head["lr"]) == (0.1, 1.0)
    assert all((group["momentum"], group["weight_decay"]) == (0.9, 0.5) for group in optimizer.param_groups)
    adamw = build_optimizer(config("train.optimizer=adamw", "train.weight_decay=0.25").train, network)
    assert isinstance(adamw, AdamW)
    assert all(group["weight_decay"] == 0.25 for group in adamw.param_groups)


@pytest.mark.parametrize("name", ["deeplabv3plus", "smp"])
def test_every_parameter_is_in_one_group(name: str) -> None:
    keys = {"name": name, "encoder": "resnet18", "embedding_dim": 6}
    network = build_network(Config.model_validate({"network": keys}), 4)
    groups = build_optimizer(Config().train, network).param_groups
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in network.parameters())


def stepped(optimizer: Optimizer, network: nn.Module, steps: int) -> list[Tensor]:
    """The weights after some steps with gradients that depend on the step and on the weights."""
    for step in range(steps):
        for parameter in network.parameters():
            parameter.grad = parameter.detach() * (step + 1) + 0.1
        optimizer.step()
    return [parameter.detach().clone() for parameter in network.parameters()]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_run_that_began_without_a_fused_optimizer_goes_on_without_it(name: str) -> None:
    """Also on a GPU: the state of an optimizer says how it steps."""
    train = config(f"train.optimizer={name}", "train.lr=0.1").train
    network = Two()
    optimizer = build_optimizer(train, network)
    assert all(not group["fused"] for group in optimizer.param_groups)
    stepped(optimizer, network, 2)
    resumed = copy.deepcopy(network)
    fused = build_optimizer(train, resumed, torch.device("cuda"))
    assert all(group["fused"] is True for group in fused.param_groups)
    fused.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert all(not group["fused"] for group in fused.param_groups)
    assert all(map(torch.equal, stepped(optimizer, network, 3), stepped(fused, resumed, 3)))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_fused_optimizer_steps_like_the_other(name: str) -> None:
    train = config(f"train.optimizer={name}", "train.lr=0.1").train
    network = Two()
    other = copy.deepcopy(network)
    fused, plain = build_optimizer(train, network, torch.device("cuda")), build_optimizer(train, other)
    for one, another in zip(stepped(fused, network, 4), stepped(plain, other, 4), strict=True):
        assert torch.allclose(one, another, rtol=1e-5, atol=1e-7)


def test_poly_schedule_with_a_rise() -> None:
    train = config("train.steps=20", "train.lr=0.2", "train.lr_warmup=3", "train.power=0.9", "train.head_lr_factor=10")
    optimizer = build_optimizer(train.train, Two())
    scheduler = build_scheduler(train.train, optimizer)
    seen = []
    for _ in range(20):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    for step, (encoder, head) in enumerate(seen):
        rise = (1 / 4, 2 / 4, 3 / 4)[step] if step < 3 else 1
        assert encoder == pytest.approx(0.2 * rise * (1 - step / 20) ** 0.9)
        assert head == pytest.approx(10 * encoder)
    assert optimizer.param_groups[0]["lr"] == 0  # after the last step


def test_batches_follow_the_keys() -> None:
    chosen = config("train.batch_size=3", "train.crop_size=[32, 40]", "train.steps=4", "train.scale_range=[1,1]")
    source = build_source(chosen.data, seed=0)
    batches = build_batches(chosen, source, semi_supervised=True, rank=0, world_size=1)
    drawn = list(batches(1))
    assert len(drawn) == 3  # from step 1 on
    assert drawn[0].image.shape == (3, 3, 32, 40)
    assert drawn[0].unlabeled is not None
    supervised = build_batches(chosen, source, semi_supervised=False, rank=0, world_size=1)
    assert next(iter(supervised(0))).unlabeled is None
    other = build_batches(chosen, source, semi_supervised=True, rank=1, world_size=2)
    assert not torch.equal(next(iter(other(1))).image, drawn[0].image)


@pytest.mark.parametrize(("device", "pinned"), [("cuda", True), ("cpu", False), (None, False)])
def test_crops_for_a_gpu_come_in_pinned_memory(
    device: str | None, pinned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr("u2pl.build.data.loader", lambda batches, **options: given.append(options))
    chosen = config("data.timeout=7")
    build_batches(
        chosen,
        build_source(chosen.data, seed=0),
        semi_supervised=True,
        rank=0,
        world_size=1,
        device=None if device is None else torch.device(device),
    )(3)
    assert given == [{"start": 3, "workers": chosen.data.workers, "timeout": 7, "pin_memory": pinned}]


def test_batches_of_a_diagnosis_are_of_images_with_masks() -> None:
    chosen = config("train.batch_size=2", "train.crop_size=32", "train.scale_range=[1,1]", "data.train=9")
    source = build_source(chosen.data, seed=0)
    bare = replace(source, unlabeled=[WithoutMask(sample) for sample in source.unlabeled])
    mixed = replace(source, unlabeled=[*bare.unlabeled, *source.unlabeled[:1]])
    options = {"semi_supervised": True, "rank": 0, "world_size": 1}
    for given, known in ((source, True), (mixed, True), (bare, False)):
        diagnosis = build_diagnosis(chosen, given, **options)
        drawn, again = list(diagnosis.batches()), list(diagnosis.batches())
        assert len(drawn) == 4
        assert diagnosis.classes == source.classes
        for batch, twin in zip(drawn, again, strict=True):
            assert torch.equal(batch.truth, twin.truth)
            assert torch.equal(batch.strong_jitter, twin.strong_jitter)
            shown = [(truth != 255).any().item() for truth in batch.truth]
            assert shown == [known] * 2
    alone = build_diagnosis(chosen, source, **{**options, "semi_supervised": False})
    assert next(iter(alone.batches())).unlabeled is None
    training = next(iter(build_batches(chosen, source, **options)(0)))
    assert training.truth is None
    assert not torch.equal(training.image, drawn[0].image)


@pytest.mark.parametrize(("name", "reads"), [("u2pl", True), ("mean_teacher", False), ("fixmatch", False)])
def test_training_reads_true_classes_for_a_diagnosed_bank_alone(name: str, reads: bool) -> None:
    chosen = config(f"method.name={name}", "method.diagnose=true", "train.batch_size=2", "train.crop_size=32")
    source = build_source(chosen.data, seed=0)
    batch = next(iter(build_batches(chosen, source, semi_supervised=True, rank=0, world_size=1)(0)))
    assert (batch.truth is not None) == reads


@dataclass(frozen=True)
class WithoutMask:
    """A sample whose mask nobody has drawn."""

    sample: Any
    has_mask = False

    @property
    def name(self) -> str:
        return self.sample.name

    def image(self) -> Tensor:
        return self.sample.image()
