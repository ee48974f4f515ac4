"""Beyond the paper: other people's metrics and file formats, and the evaluation of saved files.

:mod:`.panoptic` (PQ, PartPQ) and :mod:`.person` (APp, PCP) join the paper's metrics in
:mod:`.part_parsing`; :mod:`.formats` and :mod:`.export` read and write files, :mod:`.runner`
evaluates folders of them, :mod:`.report`, :mod:`.pictures` and :mod:`.score_study` look closer.
:mod:`.person_maps` measures where whole people are annotated and no parts, :mod:`.photographs`
reads such photographs.
"""
