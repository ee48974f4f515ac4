"""Models of transformers: saved, loaded by their folder, and run on a photo."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from packaging.version import Version
from PIL import Image

from instance_crf import taxonomies
from instance_crf.own_models.parts import load_part_model, to_q
from instance_crf.taxonomies import PartTaxonomy

transformers = pytest.importorskip("transformers")
pytest.importorskip("torchvision")  # of the image processors

LABELS = ("background", "head", "arms", "legs", "hat")
TAXONOMY = PartTaxonomy(LABELS[1:])
PIXELS = np.random.default_rng(0).integers(0, 256, (45, 60, 3)).astype(np.uint8)


def saved(folder, model, processor):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return f"hf:{folder}"


@pytest.fixture(scope="module")
def segformer(tmp_path_factory, tiny_segformer):
    folder = tmp_path_factory.mktemp("segformer")
    processor = transformers.SegformerImageProcessor(size={"height": 64, "width": 64})
    return saved(folder, tiny_segformer(LABELS), processor)


def test_segformer(segformer):
    source = load_part_model(segformer, taxonomy=TAXONOMY)
    assert source.taxonomy is TAXONOMY
    scores = source(PIXELS)
    assert (scores.kind, scores.background, scores.taxonomy) == ("logits", "first", TAXONOMY)
    # As a user does it.
    folder = segformer.removeprefix("hf:")
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder)
    with torch.no_grad():
        output = model(**processor(Image.fromarray(PIXELS), return_tensors="pt"))
    torch.testing.assert_close(scores.values, output.logits[0])
    own = processor.post_process_semantic_segmentation(output, target_sizes=[PIXELS.shape[:2]])[0]
    assert torch.equal(to_q(scores, PIXELS.shape[:2], 4).argmax(0), own)
    assert len(own.unique()) > 2


@pytest.mark.skipif(
    not hasattr(taxonomies, "taxonomy_from_id2label"), reason="taxonomies of labels are not there"
)
def test_the_taxonomy_of_the_labels(segformer, tmp_path, tiny_segformer):
    source = load_part_model(segformer)
    assert source.taxonomy.num_parts == 4
    assert source(PIXELS).background == "first"
    last = saved(
        tmp_path, tiny_segformer(LABELS[1:] + LABELS[:1]), transformers.SegformerImageProcessor()
    )
    assert load_part_model(last)(PIXELS).background == "last"
    processor = transformers.SegformerImageProcessor()
    nowhere = saved(tmp_path / "nowhere", tiny_segformer(LABELS[1:]), processor)
    with pytest.raises(ValueError, match="none of its labels.*head, arms, legs, hat.*'last'"):
        load_part_model(nowhere)
    assert load_part_model(nowhere, background="last").taxonomy.part_names == LABELS[1:4]


def test_where_the_background_is(segformer, tmp_path, tiny_segformer):
    processor = transformers.SegformerImageProcessor(size={"height": 32, "width": 32})
    spec = saved(tmp_path / "last", tiny_segformer(LABELS[1:] + LABELS[:1]), processor)
    assert load_part_model(spec, taxonomy=TAXONOMY)(PIXELS).background == "last"
    assert (
        load_part_model(spec, taxonomy=TAXONOMY, background="first")(PIXELS).background == "first"
    )
    unnamed = saved(tmp_path / "unnamed", tiny_segformer(5), processor)
    assert load_part_model(unnamed, taxonomy=TAXONOMY)(PIXELS).background == "first"
    amid = saved(tmp_path / "amid", tiny_segformer(("head", "background", "legs")), processor)
    with pytest.raises(ValueError, match="background at id 1"):
        load_part_model(amid, taxonomy=TAXONOMY)


def test_a_processor_that_crops_the_centre(tmp_path):
    """The scores cover the whole image all the same."""
    torch.manual_seed(0)
    config = transformers.MobileNetV2Config(num_labels=5, depth_multiplier=0.25, image_size=64)
    model = transformers.MobileNetV2ForSemanticSegmentation(config).eval()
    processor = transformers.MobileNetV2ImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 32, "width": 32}
    )
    assert processor.do_center_crop
    scores = load_part_model(saved(tmp_path, model, processor), taxonomy=TAXONOMY)(PIXELS)
    with torch.no_grad():
        whole = processor(Image.fromarray(PIXELS), return_tensors="pt", do_center_crop=False)
        assert whole["pixel_values"].shape[-2:] == (64, 85)
        torch.testing.assert_close(scores.values, model(**whole).logits[0])


def mask2former(folder, build, **sizes):
    processor = transformers.Mask2FormerImageProcessor(**sizes)
    return saved(folder, build(LABELS), processor)


def output_of(spec):
    folder = spec.removeprefix("hf:")
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModelForUniversalSegmentation.from_pretrained(folder)
    inputs = processor(Image.fromarray(PIXELS), return_tensors="pt")
    with torch.no_grad():
        return inputs, model(**inputs)


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.14"),
    reason="with older ones the tiny model's random weights see one label",
)
def test_mask2former(tmp_path, tiny_mask2former):
    spec = mask2former(tmp_path, tiny_mask2former, size={"height": 64, "width": 96})
    scores = load_part_model(spec, taxonomy=TAXONOMY)(PIXELS)
    assert (scores.kind, scores.values.shape) == ("prob", (5, 16, 24))
    _, output = output_of(spec)
    own = transformers.MaskFormerImageProcessor().post_process_semantic_segmentation(
        output, target_sizes=[(45, 60)]
    )[0]
    assert torch.equal(to_q(scores, (45, 60), 4).argmax(0), own) and len(own.unique()) > 1


def test_padding_is_taken_off(tmp_path, tiny_mask2former):
    """Of an image of 48 x 64 in an input of 96 x 128, what the masks' 24 x 32 samples say."""
    sizes = {
        "size": {"shortest_edge": 48, "longest_edge": 128},
        "pad_size": {"height": 96, "width": 128},
        "size_divisor": 0,
    }
    spec = mask2former(tmp_path, tiny_mask2former, **sizes)
    scores = load_part_model(spec, taxonomy=TAXONOMY)(PIXELS)
    inputs, output = output_of(spec)
    assert inputs["pixel_values"].shape[-2:] == (96, 128)
    assert inputs["pixel_mask"].sum() == 48 * 64
    assert scores.values.shape == (5, 48, 64)
    classes = output.class_queries_logits[0].softmax(-1)[:, :-1]
    sums = torch.einsum("qc,qhw->chw", classes, output.masks_queries_logits[0].sigmoid())
    # The centre of pixel i of 48 is at (i + 0.5) / 96 of the padded input.
    y = (torch.arange(48) + 0.5) / 96 * 2 - 1
    x = (torch.arange(64) + 0.5) / 128 * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[None]
    expected = F.grid_sample(sums[None], grid, align_corners=False, padding_mode="border")[0]
    torch.testing.assert_close(scores.values, expected, atol=1e-5, rtol=1e-4)


def test_a_processor_that_pads_without_saying_where(tmp_path, tiny_segformer):
    processor = transformers.DPTImageProcessor(
        size={"height": 64, "width": 64}, do_pad=True, size_divisor=48
    )
    source = load_part_model(saved(tmp_path, tiny_segformer(5), processor), taxonomy=TAXONOMY)
    with pytest.raises(ValueError, match="pads images and does not say where"):
        source(PIXELS)


def test_what_is_no_part_model(tmp_path, segformer):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_part_model(f"hf:{tmp_path / 'nowhere'}", taxonomy=TAXONOMY)
    config = transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    config.save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match="is a vit"):
        load_part_model(f"hf:{tmp_path / 'vit'}", taxonomy=TAXONOMY)
    transformers.OneFormerConfig().save_pretrained(tmp_path / "oneformer")
    with pytest.raises(ValueError, match="OneFormer.*task"):
        load_part_model(f"hf:{tmp_path / 'oneformer'}", taxonomy=TAXONOMY)
    with pytest.raises(ValueError, match="hf: there is no option mean; there are taxonomy, back"):
        load_part_model(segformer, taxonomy=TAXONOMY, mean=0)


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'instance-crf\[models\]'"):
        load_part_model("hf:some/model")
