"""The commands of ``instance-crf``, a module each; :mod:`instance_crf.cli` runs them."""
