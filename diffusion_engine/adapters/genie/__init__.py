"""Networks and heads of GENIE (Dockhorn, Vahdat & Kreis 2022, github.com/nv-tlabs/GENIE).

Its sampler `ttm2` is the solver `genie`, its `ddim` that of this name; `afs` and `denoising` are the solver's
afs and denoise; its times are of the grid `uniform`, or `quadratic` with quadratic_striding, end="t_min".
"""

from .network import genie_network
from .reader import from_genie, from_genie_head, parameter_names

__all__ = ["from_genie", "from_genie_head", "genie_network", "parameter_names"]
