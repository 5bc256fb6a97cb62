"""The packed row of a plan: where each field of a row lies in the two row tables.

`coef` is [rows, COEF] in the dtype of the slots, `index` is [rows, INDEX] int32. The C++ and CUDA
kernels carry the same numbers in csrc/common/step.h; a test compares the two.
"""

from __future__ import annotations

SLOTS = 5  # K, state slots
OUTPUTS = 16  # J, network outputs
NORMALS = 2  # M, fresh normals per element; index NORMALS is the normal of the known region
INPUTS = 2  # I, slots the network reads
TENSORS = 4  # tensors a network call may return
LABELS = 2  # columns of the table's labels: where a call's step starts, and where it ends

# float columns
P = 0  # denoised: weight of slot k
Q = P + SLOTS  # denoised: weight of output j
RAW = Q + OUTPUTS  # raw: weight e of output j
LO = RAW + OUTPUTS  # denoised is clipped to [LO, HI], then multiplied by SCALE
HI = LO + 1
SCALE = HI + 1
A = SCALE + 1  # new slot k: weight of slot l, at A + k * SLOTS + l
D = A + SLOTS * SLOTS  # new slot k: weight of denoised
E = D + SLOTS  # new slot k: weight of raw
C = E + SLOTS  # new slot k: weight of normal m, at C + k * NORMALS + m
C_IN = C + SLOTS * NORMALS  # next network input i: its scale
V0 = C_IN + INPUTS  # learned variance: normals are multiplied by exp(V0 + V1 out[JV])
V1 = V0 + 1
U0 = V1 + 1  # known region: weight of `known` and of its own normal
U1 = U0 + 1
COEF = 96

# int32 columns
NEXT = 0  # row after this one, -1 after the last
KEY = 1  # the row's own noise key
READS = 2  # bit k: slot k is read
WRITES = 3  # bit k: slot k is written
FLAGS = 4
READ = 5  # slot that next network input i is made from
JV = READ + INPUTS  # output that holds the learned log-variance
H = JV + 1  # channel block of output j
INDEX = 24

# bits of FLAGS
DENOISED = 1  # some new slot uses denoised
RAW_USED = 2  # some new slot uses raw
LEARNED = 4  # normals are scaled by the learned variance
MASKED = 8  # slot 0 is blended with the known region
NORMAL = 16  # bit NORMAL << m: normal m is used

# a row of the op `brownian`, [HEADER + TERMS] int32 and [TERMS] float32
DEPTH = 17  # of the path's tree
HEADER = 2  # how many terms the sum has, and their m
TERMS = 2 * DEPTH  # at most: the root, the first node and two of each further level

# The numbers that csrc/common/step.h has to repeat.
ABI = {
    name: value
    for name, value in list(globals().items())
    if name.isupper() and isinstance(value, int)
}
