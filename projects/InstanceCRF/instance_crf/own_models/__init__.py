"""One's own models: somebody's parts and somebody's boxes, joined without training.

`parse` is the function; `load_part_model` and `load_detector` bring public models to it. No
library is imported before something of it is used.
"""
