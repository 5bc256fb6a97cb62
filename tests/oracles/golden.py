"""Golden numbers, as data: the oracles reproduce them, and the engine's tests read the same tables.

A grid is named as in problems.grid: "lam", "karras", "t" are VP-linear (0.1, 20) from t = 1 to
1e-3; "edm" is Karras (0.002, 80, rho 7) with a final zero; "leading", "trailing", "linspace" are
spacings of DDPM's linear table ending at alpha_bar = 1. n is the number of steps.
"""

from typing import NamedTuple


class EndValue(NamedTuple):
    """Where the mixture TM ends (exact score) when started at x_T."""

    solver: str
    options: dict
    grid: str
    n: int
    x_T: float
    value: float
    tolerance: float = 1e-8


class Errors(NamedTuple):
    """|end value - exact| on TM, grid "lam", n = 10, 20, 40, 80, 160, and the last slope."""

    solver: str
    options: dict
    x_T: float
    errors: tuple
    slope: float | None  # None where the errors change sign or fall irregularly


class Moments(NamedTuple):
    """Exact mean and variance of the output on the Gaussian TG, started at N(0, variance_T)."""

    solver: str
    options: dict
    grid: str
    n: int
    variance_T: float
    mean: float
    variance: float
    tolerance: float = 1e-8


# Ends of the exact probability-flow ODE of TM, VP-linear, t = 1 to 1e-3, by x_T.
EXACT_END = {0.7: 0.238166111181, -1.3: -0.969062451304}
ERROR_STEPS = (10, 20, 40, 80, 160)

NOLOF = {"lower_order_final": False}
UNIPC2 = {"order": 2, "variant": "bh2"}
UNIPC3 = {"order": 3, "variant": "bh2", **NOLOF}
MIDPOINT = {"variant": "midpoint"}
HEUN = {"variant": "heun"}
TAB1 = {"order": 1, "variant": "tab"}
TAB3 = {"order": 3, "variant": "tab"}
RHOAB3 = {"order": 3, "variant": "rhoab"}

# (solver, options, grid, x_T, value at n = 10, value at n = 20)
_ENDS = [
    ("ddim", {}, "lam", 0.7, 0.211443447, 0.224863028),
    ("euler", {}, "lam", 0.7, 0.211443447, 0.224863028),
    ("dpm_solver_2", {}, "lam", 0.7, 0.255776155, 0.241861235),
    ("dpm_solver_3", {}, "lam", 0.7, 0.239481904, 0.238087133),
    ("dpmpp_2m", MIDPOINT, "lam", 0.7, 0.260502402, 0.243090828),
    ("dpmpp_2m", MIDPOINT | NOLOF, "lam", 0.7, 0.262885191, 0.243776141),
    ("dpmpp_3m", {"kappa": 1, **NOLOF}, "lam", 0.7, 0.262590755, 0.241348920),
    ("unipc", UNIPC2, "lam", 0.7, 0.261980402, 0.241144095),
    ("unipc", UNIPC2 | NOLOF, "lam", 0.7, 0.262359511, 0.241782422),
    ("unipc", UNIPC3, "lam", 0.7, 0.246225580, 0.237968955),
    ("unipc", UNIPC3 | {"corrector": False}, "lam", 0.7, 0.256682596, 0.240413639),
    ("deis", TAB1, "lam", 0.7, 0.234365287, 0.237835673),
    ("deis", TAB3, "lam", 0.7, 0.255774489, 0.241826130),
    ("deis", RHOAB3, "lam", 0.7, 0.227648346, 0.237060810),
    ("lms", {"order": 4}, "lam", 0.7, 0.227648346, 0.237060810),
    ("ipndm", {"order": 4}, "lam", 0.7, 0.265442209, 0.240443348),
    ("heun", {}, "lam", 0.7, 0.286287730, 0.244445832),
    ("ddim", {}, "lam", -1.3, -0.865724882, -0.921823927),
    ("euler", {}, "lam", -1.3, -0.865724882, -0.921823927),
    ("dpm_solver_2", {}, "lam", -1.3, -1.003975687, -0.976879926),
    ("dpm_solver_3", {}, "lam", -1.3, -0.964851661, -0.968869162),
    ("dpmpp_2m", MIDPOINT, "lam", -1.3, -1.012604651, -0.979689664),
    ("dpmpp_3m", {"kappa": 1, **NOLOF}, "lam", -1.3, -0.975061930, -0.968553697),
    ("unipc", UNIPC2, "lam", -1.3, -1.001977904, -0.971290457),
    ("unipc", UNIPC3, "lam", -1.3, -0.915733874, -0.966133478),
    ("deis", TAB3, "lam", -1.3, -0.962020327, -0.968527001),
    ("deis", RHOAB3, "lam", -1.3, -0.920273071, -0.960561981),
    ("lms", {"order": 4}, "lam", -1.3, -0.920273071, -0.960561981),
    ("ipndm", {"order": 4}, "lam", -1.3, -0.975345358, -0.972122378),
    ("heun", {}, "lam", -1.3, -1.047011203, -0.984166349),
    ("ddim", {}, "karras", 0.7, 0.206998620, 0.223668725),
    ("dpmpp_2m", MIDPOINT, "karras", 0.7, 0.285699913, 0.242776187),
    ("dpmpp_2m", MIDPOINT | NOLOF, "karras", 0.7, 0.288709448, 0.245901254),
    ("unipc", UNIPC2, "karras", 0.7, 0.291973519, 0.236891007),
    ("unipc", UNIPC3, "karras", 0.7, 0.305495143, 0.264986321),
    ("lms", {"order": 4}, "karras", 0.7, 0.226926018, 0.237621767),
    ("ipndm", {"order": 4}, "karras", 0.7, 0.249091633, 0.242434125),
    ("heun", {}, "karras", 0.7, 0.270119325, 0.245514823),
    ("dpm_solver_3", {}, "karras", 0.7, 0.240193834, 0.238013940),
    ("ddim", {}, "t", 0.7, 0.267146377, 0.229990804),
    ("dpmpp_2m", MIDPOINT, "t", 0.7, 0.308219391, 0.253675228),
    ("dpmpp_2m", MIDPOINT | NOLOF, "t", 0.7, 0.404937375, 0.141048413),
    # Useless as samples (lam steps of very unequal length), but a sharp test of the arithmetic.
    ("dpmpp_3m", {"kappa": 1, **NOLOF}, "t", 0.7, -0.044928678, -0.321529081),
    ("unipc", UNIPC2, "t", 0.7, 0.313670096, 0.248587190),
    ("heun", {}, "t", 0.7, 0.352711706, 0.277229636),
]

END_VALUES = [
    EndValue(solver, options, grid, n, x_T, value)
    for solver, options, grid, x_T, *values in _ENDS
    for n, value in zip((10, 20), values, strict=True)
] + [  # known to three decimals only
    EndValue("unipc", UNIPC3, "t", 10, 0.7, -0.387, 5e-4),
    EndValue("unipc", UNIPC3, "t", 20, 0.7, -0.611, 5e-4),
]

ERRORS = [
    Errors("ddim", {}, 0.7, (2.67e-2, 1.33e-2, 6.52e-3, 3.22e-3, 1.60e-3), 1.0),
    Errors("dpm_solver_2", {}, 0.7, (1.76e-2, 3.70e-3, 8.24e-4, 1.95e-4, 4.76e-5), 2.0),
    Errors("dpm_solver_3", {}, 0.7, (1.32e-3, 7.90e-5, 1.33e-5, 1.82e-6, 2.36e-7), 2.9),
    Errors("dpmpp_2m", MIDPOINT, 0.7, (2.23e-2, 4.92e-3, 1.28e-3, 3.14e-4, 7.73e-5), 2.0),
    Errors("dpmpp_2m", MIDPOINT | NOLOF, 0.7, (2.47e-2, 5.61e-3, 1.36e-3, 3.28e-4, 8.04e-5), 2.0),
    Errors(
        "dpmpp_3m",
        {"kappa": 1, **NOLOF},
        0.7,
        (2.44e-2, 3.18e-3, 3.61e-4, 7.26e-5, 1.80e-5),
        2.0,
    ),
    Errors("unipc", UNIPC2, 0.7, (2.38e-2, 2.98e-3, 2.92e-4, 2.27e-5, 9.28e-7), None),
    Errors("unipc", UNIPC2 | NOLOF, 0.7, (2.42e-2, 3.62e-3, 3.67e-4, 3.67e-5, 3.95e-6), 3.2),
    Errors("unipc", UNIPC3, 0.7, (8.06e-3, 1.97e-4, 1.19e-4, 1.03e-5, 6.86e-7), 3.9),
    Errors(
        "unipc",
        UNIPC3 | {"corrector": False},
        0.7,
        (1.85e-2, 2.25e-3, 2.63e-5, 9.86e-6, 1.94e-6),
        2.3,
    ),
    Errors("deis", TAB1, 0.7, (3.80e-3, 3.30e-4, 1.05e-4, 5.74e-5, 1.90e-5), None),
    Errors("deis", TAB3, 0.7, (1.76e-2, 3.66e-3, 4.11e-4, 2.99e-5, 1.80e-6), 4.0),
    Errors("lms", {"order": 4}, 0.7, (1.05e-2, 1.11e-3, 4.45e-5, 1.50e-6, 1.00e-7), 3.9),
    Errors("ipndm", {"order": 4}, 0.7, (2.73e-2, 2.28e-3, 2.83e-4, 6.18e-5, 1.56e-5), 2.0),
    Errors("heun", {}, 0.7, (4.81e-2, 6.28e-3, 1.32e-3, 3.06e-4, 7.36e-5), 2.05),
    Errors("ddim", {}, -1.3, (1.03e-1, 4.72e-2, 2.30e-2, 1.13e-2, 5.63e-3), 1.0),
    Errors("dpm_solver_2", {}, -1.3, (3.49e-2, 7.82e-3, 1.78e-3, 4.26e-4, 1.04e-4), 2.0),
    Errors("dpm_solver_3", {}, -1.3, (4.21e-3, 1.93e-4, 1.80e-5, 2.06e-6, 2.46e-7), 3.06),
    Errors("dpmpp_2m", MIDPOINT, -1.3, (4.35e-2, 1.06e-2, 2.32e-3, 5.44e-4, 1.32e-4), 2.04),
    Errors(
        "dpmpp_3m",
        {"kappa": 1, **NOLOF},
        -1.3,
        (6.00e-3, 5.09e-4, 2.87e-4, 1.16e-4, 3.34e-5),
        1.8,
    ),
    Errors("unipc", UNIPC2, -1.3, (3.29e-2, 2.23e-3, 2.28e-4, 2.88e-5, 3.49e-6), 3.0),
    Errors("unipc", UNIPC3, -1.3, (5.33e-2, 2.93e-3, 5.78e-5, 3.47e-7, 4.19e-8), 3.0),
    Errors("deis", TAB3, -1.3, (7.04e-3, 5.35e-4, 3.13e-7, 3.13e-6, 3.43e-7), None),
    Errors("lms", {"order": 4}, -1.3, (4.88e-2, 8.50e-3, 1.03e-3, 9.18e-5, 6.83e-6), 3.75),
    Errors("ipndm", {"order": 4}, -1.3, (6.28e-3, 3.06e-3, 8.84e-4, 2.25e-4, 5.61e-5), 2.0),
    Errors("heun", {}, -1.3, (7.79e-2, 1.51e-2, 3.34e-3, 7.88e-4, 1.91e-4), 2.04),
]

# Slopes of dpmpp_3m between n = 20, 40, ..., 640 on TM, grid "lam", x_T = -1.3, when the first
# two steps are exact: the factor kappa decides the order.
THIRD_ORDER_SLOPES = {1: (0.82, 1.31, 1.80, 1.92, 1.97), 2: (3.25, 3.23, 3.13, 3.07, 3.03)}

_CHURN = {"s_churn": 40, "s_tmin": 0.05, "s_tmax": 50}

MOMENTS = [
    Moments("ddpm", {"variance": "fixed_small"}, "trailing", 1000, 1, 0.29999697, 0.24612521),
    Moments("ddpm", {"variance": "fixed_large"}, "trailing", 1000, 1, 0.29999697, 0.25075208),
    Moments("ddim", {"eta": 0}, "leading", 10, 1, 0.29815490, 0.13997213),
    Moments("ddim", {"eta": 1}, "leading", 10, 1, 0.29997973, 0.11106430),
    Moments("ddim", {"eta": 0}, "trailing", 10, 1, 0.29929492, 0.13686656),
    Moments("ddim", {"eta": 1}, "trailing", 10, 1, 0.29999697, 0.11120562),
    Moments("ddim", {"eta": 0}, "linspace", 10, 1, 0.29931082, 0.13076304),
    Moments("ddim", {"eta": 1}, "linspace", 10, 1, 0.29999697, 0.10422249),
    Moments("ddim", {"eta": 0}, "leading", 50, 1, 0.29891099, 0.22319872),
    Moments("ddim", {"eta": 1}, "leading", 50, 1, 0.29999557, 0.19724511),
    Moments("ddim", {"eta": 0}, "trailing", 50, 1, 0.29910158, 0.22222048),
    Moments("ddim", {"eta": 1}, "trailing", 50, 1, 0.29999697, 0.19722488),
    Moments("ddim", {"eta": 0}, "linspace", 50, 1, 0.29910060, 0.22270387),
    Moments("ddim", {"eta": 1}, "linspace", 50, 1, 0.29999697, 0.19642024),
    # Respaced fixed_small is DDIM with eta = 1.
    Moments("ddpm", {"variance": "fixed_small"}, "leading", 10, 1, 0.29997973, 0.11106430),
    Moments("ddpm", {"variance": "fixed_small"}, "trailing", 50, 1, 0.29999697, 0.19722488),
    Moments("heun", {}, "edm", 18, 6400, 0.29802141, 0.27838776),
    Moments("heun", {}, "edm", 40, 6400, 0.29810671, 0.25490065),
    Moments("euler", {}, "edm", 18, 6400, 0.29841363, 0.17895560),
    Moments("heun", {**_CHURN, "s_noise": 1.003}, "edm", 256, 6400, 0.3, 0.25249440),
    Moments("heun", {**_CHURN, "s_noise": 1.0}, "edm", 256, 6400, 0.3, 0.25098622),
    Moments("euler_ancestral", {"eta": 1}, "edm", 18, 6400, 0.29998828, 0.13531038),
    Moments("euler_ancestral", {"eta": 1}, "edm", 100, 6400, 0.29998828, 0.22179158),
    Moments("dpmpp_2m_sde", {"eta": 1, **MIDPOINT}, "edm", 18, 6400, 0.29998828, 0.31993911),
    Moments("dpmpp_2m_sde", {"eta": 1, **MIDPOINT}, "edm", 50, 6400, 0.29998828, 0.25865448),
    Moments("dpmpp_2m_sde", {"eta": 1, **HEUN}, "edm", 18, 6400, 0.29998828, 0.46609934),
    Moments("dpmpp_2m_sde", {"eta": 1, **HEUN}, "edm", 50, 6400, 0.29998828, 0.26598729),
]

# UniPC's system for h = 0.5 and relative nodes -1, -2, .. then 1:
# (order, variant, b, rho_p, rho_c, B); None where no number is known.
UNIPC_H = 0.5
UNIPC_COEFFICIENTS = [
    (2, "bh1", (0.42612264, 0.29550944), (0.5,), (0.0653066, 0.36081604), -0.5),
    (2, "bh2", (0.54149408, 0.37551775), (0.5,), (0.08298817, 0.45850592), -0.39346934),
    (
        3,
        "bh2",
        None,
        (1.45850592, -0.91701183),
        (0.20954142, -0.08436884, 0.4163215),
        -0.39346934,
    ),
    (3, "bh1", None, (1.14775472, -0.72163208), (0.16489625, -0.0663931, 0.32761949), -0.5),
]

# DEIS on VP-linear from t = 0.6 to 0.4 with past times 0.8, 1.0. tAB weights are those of eps in
# x, rhoAB weights those of eps in x / alpha.
DEIS_TIMES, DEIS_T, DEIS_PSI = (0.6, 0.8, 1.0), 0.4, 2.73190727
DEIS_COEFFICIENTS = {
    "tab": [
        (-1.79896391,),
        (-2.50472900, 0.70576509),
        (-3.06573886, 1.82778482, -0.56100987),
    ],
    "rhoab": [
        (-4.06824170,),
        (-4.50350950, 0.43526779),
        (-4.56824411, 0.50968876, -0.00968635),
    ],
}

# One step of VP-linear from t = 0.6 to 0.4: DDIM in eps and x0 form, ancestral noise.
ONE_STEP = {
    "s": 0.6,
    "t": 0.4,
    "h": 1.10051623,
    "eps_form": (2.73190727, -1.79896391),
    "denoised_form": (0.90890361, 0.29507831),
    "ancestral_noise": 0.84582324,
}

# (schedule, method, argument, value); schedules as in problems.SCHEDULES.
SCHEDULE_VALUES = [
    ("vp", "lam", 1.0, -5.02497841),
    ("vp", "lam", 1e-3, 4.55771493),
    ("vp", "lam", 1e-5, 6.90725778),
    ("vp", "alpha", 1.0, 6.57158649e-3),
    ("vp", "ratio", 1.0, 152.166970),
    ("vp", "ratio", 1e-3, 0.0104859928),
    ("vp", "alpha", 0.6, 0.16186381),
    ("vp", "sigma", 0.6, 0.98681311),
    ("vp", "alpha", 0.4, 0.44219691),
    ("vp", "sigma", 0.4, 0.89691800),
    ("ddpm", "alpha_bar", 0, 0.9999),
    ("ddpm", "alpha_bar", 999, 4.035830e-5),
    ("ddpm", "ratio", 0, 0.010001),
    ("ddpm", "ratio", 999, 157.4073),
    ("sd", "alpha_bar", 0, 0.99915),
    ("sd", "alpha_bar", 999, 0.00466010),
    ("sd", "ratio", 0, 0.029167),
    ("sd", "ratio", 999, 14.614641),
]

LAM_GRID_10 = [1, 0.89912293, 0.78556807, 0.65343851, 0.49343953, 0.30463141]
LAM_GRID_10 += [0.14063641, 0.05360431, 0.01809540, 0.00499190, 0.001]

KARRAS_18 = [80, 57.5859847, 40.7855738, 28.3745846, 19.3524530, 12.9100824, 8.40093531]
KARRAS_18 += [5.31519452, 3.25682152, 1.92333984, 1.08817064, 0.585348123, 0.296442284]
KARRAS_18 += [0.139516469, 0.0599473112, 0.0229345184, 0.00752801996, 0.002]
