"""What a :class:`~instance_crf.structures.PartInstances` becomes: maps, pictures, files, the
structures of other libraries, text. Its methods are the way in.

The modules import NumPy, Pillow and torch at once, everything else when it is used.
"""
