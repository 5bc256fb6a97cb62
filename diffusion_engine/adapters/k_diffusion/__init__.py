"""k-diffusion's functions by their names, over the engine's tables. k-diffusion itself is not imported."""

from .networks import from_k_diffusion as from_k_diffusion
from .noise import BrownianTreeNoiseSampler as BrownianTreeNoiseSampler
from .sampling import SAMPLERS as SAMPLERS
from .sampling import sample_dpm_2 as sample_dpm_2
from .sampling import sample_dpm_2_ancestral as sample_dpm_2_ancestral
from .sampling import sample_dpm_adaptive as sample_dpm_adaptive
from .sampling import sample_dpm_fast as sample_dpm_fast
from .sampling import sample_dpmpp_2m as sample_dpmpp_2m
from .sampling import sample_dpmpp_2m_sde as sample_dpmpp_2m_sde
from .sampling import sample_dpmpp_2s_ancestral as sample_dpmpp_2s_ancestral
from .sampling import sample_dpmpp_3m_sde as sample_dpmpp_3m_sde
from .sampling import sample_dpmpp_sde as sample_dpmpp_sde
from .sampling import sample_euler as sample_euler
from .sampling import sample_euler_ancestral as sample_euler_ancestral
from .sampling import sample_heun as sample_heun
from .sampling import sample_lms as sample_lms
from .schedules import append_zero as append_zero
from .schedules import get_sigmas_exponential as get_sigmas_exponential
from .schedules import get_sigmas_karras as get_sigmas_karras
from .schedules import get_sigmas_polyexponential as get_sigmas_polyexponential
from .schedules import get_sigmas_vp as get_sigmas_vp
from .tables import levels as levels
