"""The folder in which the blocks of docs/YOUR_MODELS.md run: a photo, and all that they name.

The models are of the libraries' own architectures, small, under the public names. All their weights
are random but for the last layer's, which are solved for, so that they find the six parts and the
two people of this one picture. Whoever reads their input or output wrongly does not find them.
"""

import json
from math import log

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from instance_crf.data.label_io import write_part_map
from instance_crf.taxonomies import get_taxonomy

SIZE = (240, 320)
BOXES = torch.tensor([[40.0, 16, 150, 230], [130, 20, 260, 228]])
COLORS = np.array(
    [(96, 116, 96), (220, 60, 50), (50, 80, 220), (230, 200, 40)]
    + [(60, 200, 210), (200, 60, 200), (240, 240, 240)]
)
#: Taxonomy -> the parts that people are made of here, from above.
BANDS = {
    "pascal_person_part": "head, torso, upper arms, lower arms, upper legs, lower legs",
    "segformer_clothes": "hair, face, upper clothes, left arm, pants, left shoe",
    "fashn": "hair, face, top, hands, pants, feet",
    "sapiens": "hair, face neck, upper clothing, left hand, lower clothing, left shoe",
    "sapiens2": "hair, face neck, upper clothing, left hand, lower clothing, left shoe",
    "lip": "hair, face, upper clothes, left arm, pants, left shoe",
    "cihp": "hair, face, upper clothes, left arm, pants, left shoe",
    "densepose": "left head, torso front, left hand, left upper leg front, right foot, left foot",
}
MEAN, STD = (0.406, 0.456, 0.485), (0.225, 0.224, 0.229)  # of SCHP, blue first


def scene():
    """(H, W) persons 0..2, the first in front, and (H, W) bands 0..6."""
    person, band = np.zeros(SIZE, int), np.zeros(SIZE, int)
    for index in (1, 0):
        x1, y1, x2, y2 = BOXES[index].int().tolist()
        person[y1:y2, x1:x2] = index + 1
        band[y1:y2, x1:x2] = 1 + (np.arange(y2 - y1) * 6 // (y2 - y1))[:, None]
    return person, band


def ids_of(name):
    """(7,) part id of each band, the background's first."""
    taxonomy = get_taxonomy(name)
    return np.array([0, *map(taxonomy.part_id, BANDS[name].split(", "))])


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the blocks run."""
    for library in ("transformers", "torchvision", "onnx", "onnxruntime", "supervision"):
        pytest.importorskip(library)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("your_models")
    person, band = scene()
    noise = np.random.default_rng(0).normal(0, 3, (*SIZE, 3))
    pixels = COLORS[band] + 12 * (person == 2)[..., None] * (band > 0)[..., None] + noise
    photo = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    photo.save(folder / "photo.jpg", quality=95, subsampling=0)
    photo = Image.open(folder / "photo.jpg")
    write_transformers(folder, photo)
    write_torchvision(folder, photo)
    write_onnx(folder)
    write_maps(folder, photo, band)
    return folder


# --- transformers ---


def write_transformers(folder, photo):
    import transformers as library

    def labels(name):
        names = ("background", *get_taxonomy(name).part_names)
        return {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}

    processor = library.SegformerImageProcessor(size={"height": 128, "width": 128})
    for place, name in (
        ("mattmdjaga/segformer_b2_clothes", "segformer_clothes"),
        ("fashn-ai/fashn-human-parser", "fashn"),
    ):
        config = library.SegformerConfig(
            **labels(name), hidden_sizes=[32, 16, 16, 16], depths=[1, 1, 1, 1],
            num_attention_heads=[1, 1, 1, 1], decoder_hidden_size=64,
        )  # fmt: skip
        model = library.SegformerForSemanticSegmentation(config).eval()
        fit(model.decode_head.classifier, model, processor, photo, name)
        save(folder / place, model, processor)

    head = library.Sapiens2HeadConfig(upsample_out_channels=[64], conv_out_channels=[64])
    config = library.Sapiens2Config(
        num_labels=29, patch_size=8, hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_attention_heads=2, head_config=head,
    )  # fmt: skip
    model = library.Sapiens2ForSemanticSegmentation(config).eval()
    processor = library.Sapiens2ImageProcessor(size={"height": 128, "width": 96})
    fit(model.decode_head.predictor, model, processor, photo, "sapiens2")
    save(folder / "facebook/sapiens2-seg-0.4b", model, processor)

    write_mask2former(folder / "my_mask2former", library, labels("pascal_person_part"), photo)
    write_rt_detr(folder / "PekingU/rtdetr_r18vd", library, photo)


def save(folder, model, processor):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def seen_by(module, run):
    """The first input of a module, and what the run gives."""
    seen = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        output = run()
    handle.remove()
    return seen[-1], output


def fit(conv, model, processor, photo, name):
    """The weights of the last layer, a 1 x 1 convolution, by ridge regression."""
    inputs = processor(photo, return_tensors="pt")
    features, _ = seen_by(conv, lambda: model(**inputs))
    set_regression(conv, features, name)


def set_regression(conv, features, name):
    """The channels of the bands by :func:`regression`; the others are out of the question."""
    rows = torch.from_numpy(ids_of(name))
    solved = 20 * regression(F.pad(features, (0, 0, 0, 0, 0, 1), value=1), low=0)
    conv.weight.data.zero_()
    conv.weight.data[rows] = solved[:, :-1, None, None]
    conv.bias = torch.nn.Parameter(torch.full((conv.out_channels,), -20.0))
    conv.bias.data[rows] = solved[:, -1]


def regression(features, low):
    """(1, F, h, w) -> (7, F), which give about 1 in their band and ``low`` in the others."""
    x = features[0].flatten(1).double()
    band = torch.from_numpy(scene()[1])[None, None].double()
    band = F.interpolate(band, features.shape[-2:], mode="nearest-exact").long().flatten()
    weight = x / torch.bincount(band, minlength=7)[band]  # each band counts the same
    target = low + (1 - low) * F.one_hot(band).double()
    square = weight @ x.T
    ridge = 1e-6 * square.trace() * torch.eye(len(x))
    return torch.linalg.solve(square + ridge, weight @ target).T.float()


def write_mask2former(place, library, labels, photo):
    backbone = library.SwinConfig(
        embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = library.Mask2FormerConfig(
        **labels, backbone_config=backbone, num_queries=7, feature_size=64, mask_feature_size=64,
        hidden_dim=32, encoder_feedforward_dim=16, dim_feedforward=16, encoder_layers=1,
        decoder_layers=2, num_attention_heads=2,
    )  # fmt: skip
    model = library.Mask2FormerForUniversalSegmentation(config).eval()
    transformer = model.model.transformer_module
    transformer.queries_features.weight.data.normal_()
    for layer in transformer.decoder.layers:  # queries see nothing: then each is what it was
        layer.cross_attn.out_proj.weight.data.zero_()
        layer.cross_attn.out_proj.bias.data.zero_()
    processor = library.Mask2FormerImageProcessor(size={"height": 96, "width": 128})
    inputs = processor(photo, return_tensors="pt")
    queries, output = seen_by(model.class_predictor, lambda: model(**inputs))
    classes = F.pad(20 * torch.eye(7), (0, 1))  # query i is class i, none is "no object"
    solve_linear(model.class_predictor, queries[0], classes)
    masks = 10 * regression(output.pixel_decoder_last_hidden_state, low=-1)
    embedder = transformer.decoder.mask_predictor.mask_embedder
    last = [m for m in embedder.modules() if isinstance(m, torch.nn.Linear)][-1]
    hidden, _ = seen_by(last, lambda: model(**inputs))
    solve_linear(last, hidden[0], masks)
    save(place, model, processor)


def solve_linear(layer, inputs, outputs):
    """inputs (N, F) -> outputs (N, G), without a bias; N is at most F."""
    layer.weight.data = (torch.linalg.pinv(inputs.double()) @ outputs.double()).T.float()
    layer.bias.data.zero_()


def write_rt_detr(place, library, photo):
    backbone = library.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    names = {0: "person", 1: "bicycle"}
    config = library.RTDetrConfig(
        backbone_config=backbone, id2label=names, label2id={n: i for i, n in names.items()},
        encoder_in_channels=[16, 32, 64], encoder_hidden_dim=32, encoder_ffn_dim=32, d_model=32,
        encoder_attention_heads=2, decoder_in_channels=[32, 32, 32], decoder_ffn_dim=32,
        decoder_layers=1, decoder_attention_heads=2, num_queries=2, num_denoising=0,
    )  # fmt: skip
    model = library.RTDetrForObjectDetection(config).eval()
    processor = library.RTDetrImageProcessor(size={"height": 64, "width": 64})
    inputs = processor(photo, return_tensors="pt")
    decoder = model.model.decoder
    decoder.class_embed[0].weight.data.zero_()
    decoder.class_embed[0].bias.data[:] = torch.tensor([3.0, -5.0])  # all are people
    last = decoder.bbox_embed[0].layers[-1]
    last.weight.data.zero_()
    last.bias.data.zero_()  # then boxes are the queries' own
    hidden, output = seen_by(last, lambda: model(**inputs))
    relative = BOXES / torch.tensor(SIZE[::-1]).repeat(2)
    target = torch.tensor([as_centre(box) for box in relative.tolist()])
    solve_linear(last, hidden[0], target.logit() - output.pred_boxes[0].logit())
    save(place, model, processor)


# --- torchvision ---


def write_torchvision(folder, photo):
    from torchvision.models import get_model, get_model_weights
    from torchvision.transforms.functional import pil_to_tensor

    name = "lraspp_mobilenet_v3_large"
    model = get_model(name, weights=None, weights_backbone=None, num_classes=7).eval()
    model.classifier.high_classifier.weight.data.zero_()
    model.classifier.high_classifier.bias.data.zero_()
    image = get_model_weights(name).DEFAULT.transforms()(pil_to_tensor(photo))[None]
    conv = model.classifier.low_classifier
    features, _ = seen_by(conv, lambda: model(image))
    set_regression(conv, features, "pascal_person_part")
    torch.save(model.state_dict(), folder / "my_parts.pth")

    name = "ssdlite320_mobilenet_v3_large"
    model = get_model(name, weights=None, weights_backbone=None, num_classes=2).eval()
    write_ssd(model, pil_to_tensor(photo) / 255)
    torch.save(model.state_dict(), folder / "my_detector.pth")


def write_ssd(model, image):
    """Only the first two of the six anchors of the last level, one cell, are people."""
    (images, _), levels = model.transform([image]), 6
    with torch.no_grad():
        features = list(model.backbone(images.tensors).values())
    anchors = model.anchor_generator(images, features)[0][-6:][:2]
    target = BOXES * (320 / torch.tensor(SIZE[::-1])).repeat(2)
    deltas = model.box_coder.encode_single(target, anchors)
    for level in range(levels):
        classes = model.head.classification_head.module_list[level][-1]
        boxes = model.head.regression_head.module_list[level][-1]
        for layer in (classes, boxes):
            layer.weight.data.zero_()
        is_last = level == levels - 1
        classes.bias.data.view(-1, 2)[:] = torch.tensor([9.0, -9.0])
        boxes.bias.data.zero_()
        if is_last:
            classes.bias.data.view(-1, 2)[:2] = torch.tensor([-3.0, 0.0])
            boxes.bias.data.view(-1, 4)[:2] = deltas


# --- files ---


def write_onnx(folder):
    """SCHP's inputs and outputs, by colours; and YOLOX's, the same boxes whatever it sees."""
    from onnx import numpy_helper

    colors = (COLORS[:, ::-1] / 255 - MEAN) / STD  # blue first
    for file, name, size in (
        ("schp_pascal.onnx", "pascal_person_part", 512),
        ("schp_lip.onnx", "lip", 473),
    ):
        count, ids = get_taxonomy(name).num_parts + 1, ids_of(name)
        weight = np.zeros((count, 3, 1, 1), np.float32)
        bias = np.full(count, -100, np.float32)
        weight[ids, :, 0, 0], bias[ids] = 4 * colors, -2 * (colors**2).sum(1)
        constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
        side = (size - 1) // 4 + 1
        shapes = (1, 3, size, size), (1, count, side, side)
        nodes = [("Conv", ["photo", "w", "b"], {"strides": [4, 4], "kernel_shape": [1, 1]})]
        write_graph(folder / file, shapes, nodes, constants)

    cells = [(416 // stride) ** 2 for stride in (8, 16, 32)]
    output = np.zeros((1, sum(cells), 85), np.float32)
    for box, score in zip((BOXES * 416 / SIZE[1]).tolist(), (0.9, 0.8), strict=True):
        x, y, width, height = (v / 32 for v in as_centre(box))
        row = cells[0] + cells[1] + int(y) * 13 + int(x)
        output[0, row, :6] = x - int(x), y - int(y), log(width), log(height), score, 1
    constants = [numpy_helper.from_array(output, "known")]
    constants.append(numpy_helper.from_array(np.float32(0), "zero"))
    nodes = [
        ("ReduceMin", ["photo"], {"keepdims": 0}),
        ("Mul", ["0", "zero"], {}),
        ("Add", ["1", "known"], {}),
    ]
    write_graph(folder / "yolox_nano.onnx", ((1, 3, 416, 416), output.shape), nodes, constants)


def as_centre(box):
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def write_graph(path, shapes, nodes, constants):
    """Nodes of one output each, called by their number; the last is the model's."""
    import onnx

    last = len(nodes) - 1
    made = [
        onnx.helper.make_node(kind, inputs, ["scores" if i == last else str(i)], **attributes)
        for i, (kind, inputs, attributes) in enumerate(nodes)
    ]
    infos = [
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)]
        for name, shape in zip(("photo", "scores"), shapes, strict=True)
    ]
    graph = onnx.helper.make_graph(made, "graph", *infos, constants)
    opset = onnx.helper.make_opsetid("", 13)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


def write_maps(folder, photo, band):
    write_part_map(folder / "maps/photo.png", ids_of("cihp")[band].astype(np.uint8))
    (folder / "sapiens_output").mkdir()
    ids = ids_of("sapiens")[band]
    np.save(folder / "sapiens_output/photo_seg.npy", ids)
    np.save(folder / "sapiens_output/photo.npy", ids > 0)
    photo.save(folder / "sapiens_output/photo.png")
    iuv = np.random.default_rng(0).integers(1, 256, (*SIZE, 3)).astype(np.uint8)
    iuv[..., 2] = ids_of("densepose")[band]
    Image.fromarray(iuv).save(folder / "photo_IUV.png")
    results = [
        {"image_id": "photo", "category_id": 1, "score": score}
        | {"bbox": [x1, y1, x2 - x1, y2 - y1]}
        for (x1, y1, x2, y2), score in zip(BOXES.tolist(), (0.9, 0.8), strict=True)
    ]
    (folder / "boxes.json").write_text(json.dumps(results))


@pytest.fixture(scope="session")
def agreement():
    """From a result on the photo to the shares of people's pixels with the right part, and of all
    pixels with the right person."""
    person, band = scene()

    def measure(result):
        [ids] = [ids_of(n) for n in BANDS if get_taxonomy(n) == result.taxonomy][:1]
        number = np.append(0, result.detection_index.numpy() + 1)  # the better comes first
        part, owner = result.part_map.numpy(), number[result.object_map.numpy()]
        return (part == ids[band])[band > 0].mean(), (owner == person).mean()

    return measure
