"""Shared by the tests of the tools: some build models themselves."""

import instance_crf

instance_crf.register()
