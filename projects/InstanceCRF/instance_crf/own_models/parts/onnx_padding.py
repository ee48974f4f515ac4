"""Dilated convolutions with "same" padding, which ONNX Runtime refuses: their padding spelt out.

BodyPix' files of stride 8 have them.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["explain_padding", "with_explicit_padding"]

_SAME = (b"SAME_UPPER", b"SAME_LOWER")


def explain_padding(error: Exception) -> bool:
    """Whether ONNX Runtime refused a dilated convolution for its automatic padding."""
    return "AutoPadType" in str(error) and "ilation" in str(error)


def with_explicit_padding(path: Path, error: Exception) -> bytes:
    """The model with explicit pads where a dilated convolution of stride 1 has automatic ones.

    With stride 1, "same" means dilation * (kernel - 1) samples in all, at any size, so the numbers
    are those that were meant. The file is left as it is.

    Raises:
        ValueError: onnx is not installed, or there is a dilated convolution of another stride.
    """
    try:
        import onnx
    except ImportError:
        raise ValueError(
            f"onnx:{path}: ONNX Runtime refuses dilated convolutions with auto_pad=SAME_UPPER "
            f"({error}). With the package onnx installed, they are given explicit pads when the "
            "model is loaded: pip install onnx"
        ) from error
    model = onnx.load(str(path))
    for node in model.graph.node:
        if node.op_type == "Conv":
            _spell_out(onnx, node, path)
    return model.SerializeToString()


def _spell_out(onnx, node, path: Path) -> None:
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    dilations, kernel = values.get("dilations", []), values.get("kernel_shape", [])
    if values.get("auto_pad") not in _SAME or all(d == 1 for d in dilations):
        return
    if any(s != 1 for s in values.get("strides", [])) or len(kernel) != len(dilations):
        raise ValueError(
            f"onnx:{path}: the convolution {node.name!r} is dilated, padded by auto_pad and has "
            f"strides {values.get('strides')}: its pads depend on the size. Export it with pads."
        )
    totals = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
    pads = less + more if values["auto_pad"] == b"SAME_UPPER" else more + less
    kept = [a for a in node.attribute if a.name not in ("auto_pad", "pads")]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute("pads", pads)])
