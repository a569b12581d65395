"""A linear layer on a few rows, as decoding calls it, bound by reading the weights once; and on many, in float32.

BLAS is made for many rows. For one, on an AMD EPYC with MKL, torch's product reads 17 GB/s a core where the memory
gives 45, and for two or three rows it reads the weights once for each. For many it is good where it is at home:
`cpu_many` is for machines where it is not.
"""

from salience.ops.linear_rows.api import linear_rows

__all__ = ["linear_rows"]
