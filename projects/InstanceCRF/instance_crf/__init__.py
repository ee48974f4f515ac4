"""InstanceCRF: holistic, instance-level human parsing on Detectron2."""
