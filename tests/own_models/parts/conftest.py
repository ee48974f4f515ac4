"""Small models of transformers, of its own classes, with random weights."""

import pytest
import torch


@pytest.fixture(scope="session")
def tiny_segformer():
    """From the number of labels (or their names) to a model whose labels differ over an image."""
    transformers = pytest.importorskip("transformers")

    def build(labels):
        torch.manual_seed(0)
        config = transformers.SegformerConfig(
            **of_labels(labels),
            hidden_sizes=[8, 8, 8, 8],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 1, 1, 1],
            decoder_hidden_size=8,
        )
        model = transformers.SegformerForSemanticSegmentation(config).eval()
        model.decode_head.classifier.weight.data *= 30
        return model

    return build


@pytest.fixture(scope="session")
def tiny_mask2former():
    """As the other; its classes and masks are less alike than random weights make them."""
    transformers = pytest.importorskip("transformers")

    def build(labels):
        torch.manual_seed(0)
        backbone = transformers.SwinConfig(
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 1, 1],
            window_size=4,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )
        config = transformers.Mask2FormerConfig(
            **of_labels(labels),
            backbone_config=backbone,
            num_queries=6,
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_feedforward_dim=16,
            dim_feedforward=16,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
        )
        model = transformers.Mask2FormerForUniversalSegmentation(config).eval()
        model.class_predictor.weight.data *= 20
        model.model.pixel_level_module.decoder.mask_projection.weight.data *= 200
        model.model.transformer_module.queries_features.weight.data *= 100
        model.model.transformer_module.queries_embedder.weight.data *= 100
        return model

    return build


def of_labels(labels):
    if isinstance(labels, int):
        return {"num_labels": labels}
    return {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}
