"""From the layouts in which data sets are released to the canonical one, and checks of the result.

What the scripts in ``datasets/`` call: :mod:`.conversion` makes splits, :mod:`.pascal_part_mat`
reads PASCAL-Part's annotations, :mod:`.verification` looks through a data set on disk.
"""
