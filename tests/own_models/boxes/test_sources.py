"""Detectors by their text: real models with random weights, saved and loaded."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model

from instance_crf.own_models.boxes import DETECTOR_KINDS, load_detector
from instance_crf.own_models.inputs import Source

NAME = "fasterrcnn_mobilenet_v3_large_320_fpn"
TINY = {"min_size": 96, "max_size": 128, "box_detections_per_img": 50}


@pytest.fixture(scope="module")
def pixels():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    image.setflags(write=False)  # as photos are read
    return image


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = get_model(NAME, weights=None, weights_backbone=None, num_classes=3, **TINY)
    model.roi_heads.box_predictor.cls_score.bias.data[:] = torch.tensor([0, 1, 0.5])
    file = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save(model.state_dict(), file)
    return model.eval(), file


@pytest.mark.parametrize("spec", ["yolo:x", "torchvision", "torchvision:", "", "C:/a.onnx", None])
def test_unknown_kinds_list_the_known(spec):
    with pytest.raises(ValueError, match="There is no detector") as error:
        load_detector(spec)
    assert all(f"{kind}:" in str(error.value) for kind in DETECTOR_KINDS)


def test_least_score_is_a_score():
    with pytest.raises(ValueError, match="least_score is 5"):
        load_detector(f"torchvision:{NAME}", least_score=5)
    with pytest.raises(ValueError, match="least_score is '0.5'"):
        load_detector(f"torchvision:{NAME}", least_score="0.5")


def test_torchvision(weights, pixels):
    model, file = weights
    table = ["__background__", "person", "dog"]
    source = load_detector(
        f"torchvision:{NAME}:{file}", class_names=table, least_score=0, device="cpu", **TINY
    )
    assert isinstance(source, Source)
    found = source(pixels, None)
    model.roi_heads.score_thresh = 0
    with torch.inference_mode():
        output = model([torch.tensor(pixels).permute(2, 0, 1).float() / 255])[0]
    rows = found.index
    assert len(found) > 2 and torch.allclose(found.boxes, output["boxes"][rows])
    assert torch.allclose(found.scores, output["scores"][rows])
    assert found.class_names == tuple(table[i] for i in output["labels"][rows].tolist())
    assert found.known_classes == tuple(table)

    middle = float(found.scores.mean())
    source = load_detector(
        f"torchvision:{NAME}:{file}", num_classes=3, class_names={1: "person", 2: "dog"},
        least_score=middle, device="cpu", **TINY,
    )  # fmt: skip
    best = source(pixels)
    assert 0 < len(best) < len(found) and float(best.scores.min()) >= middle
    assert best.known_classes == ("person", "dog")


def test_torchvision_checkpoint(weights, pixels, tmp_path):
    model, _ = weights
    torch.save({"model": model.state_dict(), "epoch": 3}, tmp_path / "a.pth")
    spec = f"torchvision:{NAME}:{tmp_path / 'a.pth'}"
    source = load_detector(spec, class_names=["", "person", "dog"], **TINY)
    assert source(pixels).boxes.shape[1] == 4


def test_torchvision_scores_of_models_of_one_stage(pixels, tmp_path):
    """They leave out low scores by themselves; least_score says which instead."""
    name = "ssdlite320_mobilenet_v3_large"
    torch.manual_seed(0)
    model = get_model(name, weights=None, weights_backbone=None, num_classes=91)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    source = load_detector(f"torchvision:{name}:{tmp_path / 'a.pth'}", least_score=0.0)
    assert source.model.score_thresh == 0
    found = source(pixels)
    assert "person" in found.known_classes  # COCO's table, where nothing else is said


def test_torchvision_errors(weights, tmp_path, monkeypatch):
    _, file = weights
    with pytest.raises(ValueError, match="no detector 'resnet50'; it has .*maskrcnn_resnet50_fpn"):
        load_detector("torchvision:resnet50")
    with pytest.raises(FileNotFoundError, match=r"none\.pth does not exist"):
        load_detector(f"torchvision:{NAME}:{tmp_path / 'none.pth'}")
    with pytest.raises(ValueError, match="with 91 classes.*num_classes= .*size mismatch"):
        load_detector(f"torchvision:{NAME}:{file}", **TINY)
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(ValueError, match=r"text\.pth is broken, or no file of weights"):
        load_detector(f"torchvision:{NAME}:{tmp_path / 'text.pth'}", **TINY)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list, not a dict of weights"):
        load_detector(f"torchvision:{NAME}:{tmp_path / 'list.pth'}", **TINY)
    with pytest.raises(ValueError, match=r"wrong options .*FasterRCNN has no 'colour'"):
        load_detector(f"torchvision:{NAME}:{file}", num_classes=3, colour=1)
    with pytest.raises(ValueError, match="num_classes is for weights of one's own"):
        load_detector(f"torchvision:{NAME}", num_classes=3)


def test_torchvision_without_a_connection(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(FileNotFoundError) as error:
        load_detector(f"torchvision:{NAME}")
    message = str(error.value)
    assert "nor could they be downloaded from https://" in message and "URLError" in message
    assert f"torchvision:{NAME}:FILE" in message


def yolos():
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    config = YolosConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=37,
        image_size=[64, 64], patch_size=16, num_detection_tokens=8, num_labels=2,
    )  # fmt: skip
    size = {"shortest_edge": 48, "longest_edge": 64}
    model = YolosForObjectDetection(config)
    model.vit.embeddings.detection_tokens.data.normal_()  # they begin as zeros, all alike
    return model, YolosImageProcessor(size=size)


def detr():
    from transformers import (
        DetrConfig,
        DetrForObjectDetection,
        DetrImageProcessor,
        ResNetConfig,
    )

    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"]
    )
    config = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        backbone_config=backbone, d_model=32, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=37,
        decoder_ffn_dim=37, num_queries=8, num_labels=2,
    )  # fmt: skip
    size = {"shortest_edge": 48, "longest_edge": 64}
    return DetrForObjectDetection(config), DetrImageProcessor(size=size)


@pytest.mark.parametrize("build", [yolos, detr])
def test_transformers(build, pixels, tmp_path):
    torch.manual_seed(0)
    model, processor = build()
    for parameter in model.class_labels_classifier.parameters():
        parameter.data = torch.randn_like(parameter)  # scores that differ
    model.config.id2label = {0: "person", 1: "dog"}
    model.config.label2id = {"person": 0, "dog": 1}
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    source = load_detector(f"hf:{tmp_path}", device="cpu")
    found = source(pixels, None)

    inputs = processor(images=Image.fromarray(pixels), return_tensors="pt")
    with torch.inference_mode():
        outputs = model.eval()(**inputs)
    scores, labels = outputs.logits[0].softmax(1)[:, :2].max(1)
    x, y, w, h = outputs.pred_boxes[0].unbind(1)
    boxes = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
    boxes = boxes * torch.tensor([80, 60, 80, 60])
    rows = scores > 0.05
    assert int(rows.sum()) > 3 and torch.allclose(found.boxes, boxes[rows], atol=1e-3)
    assert torch.allclose(found.scores, scores[rows], atol=1e-5)
    assert found.class_names == tuple(("person", "dog")[i] for i in labels[rows].tolist())

    middle = float(found.scores.mean())
    few = load_detector(f"hf:{tmp_path}", least_score=middle, class_names=["human", "wolf"])
    found = few(pixels)
    assert 0 < len(found) < int(rows.sum()) and set(found.class_names) <= {"human", "wolf"}


def test_transformers_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder of a model .*none does not exist"):
        load_detector(f"hf:{tmp_path / 'none'}")
    with pytest.raises(FileNotFoundError, match="transformers cannot load .* hf:FOLDER"):
        load_detector(f"hf:{tmp_path}")
    with pytest.raises(FileNotFoundError, match="Without a connection to the hub, give a folder"):
        load_detector("hf:nobody/nothing", local_files_only=True)


def test_transformers_of_another_task(tmp_path):
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])
    ResNetForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is not an object detector"):
        load_detector(f"hf:{tmp_path}")
