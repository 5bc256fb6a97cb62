"""Every implementation of every op, and which to prefer where. Strings: nothing is imported here."""

# "torch" is the op's definition, an Op; the others are an Implementation.
IMPLEMENTATIONS = {
    ("step", "torch"): "diffusion_engine.ops.step_reference:OP",
    ("step", "cpp"): "diffusion_engine.backends.step:CPP",
    ("step", "triton"): "diffusion_engine.kernels.step:TRITON",
    ("step", "cuda"): "diffusion_engine.backends.step:CUDA",
    ("noise", "torch"): "diffusion_engine.ops.noise:OP",
    ("noise", "cpp"): "diffusion_engine.backends.noise:CPP",
    ("noise", "triton"): "diffusion_engine.kernels.noise:TRITON",
    ("noise", "cuda"): "diffusion_engine.backends.noise:CUDA",
    ("brownian", "torch"): "diffusion_engine.ops.brownian:OP",
    ("brownian", "cpp"): "diffusion_engine.backends.brownian:CPP",
    ("brownian", "triton"): "diffusion_engine.kernels.brownian:TRITON",
    ("brownian", "cuda"): "diffusion_engine.backends.brownian:CUDA",
    ("norms", "torch"): "diffusion_engine.ops.norms:OP",
    ("norms", "cpp"): "diffusion_engine.backends.norms:CPP",
    ("norms", "triton"): "diffusion_engine.kernels.norms:TRITON",
    ("norms", "cuda"): "diffusion_engine.backends.norms:CUDA",
    ("quantile", "torch"): "diffusion_engine.ops.quantile:OP",
    ("quantile", "cpp"): "diffusion_engine.backends.quantile:CPP",
    ("quantile", "triton"): "diffusion_engine.kernels.quantile:TRITON",
    ("quantile", "cuda"): "diffusion_engine.backends.quantile:CUDA",
    ("group_norm", "torch"): "diffusion_engine.ops.group_norm:OP",
    ("group_norm", "cpp"): "diffusion_engine.backends.group_norm:CPP",
    ("group_norm", "triton"): "diffusion_engine.kernels.group_norm:TRITON",
    ("group_norm", "cuda"): "diffusion_engine.backends.group_norm:CUDA",
    ("attention", "torch"): "diffusion_engine.ops.attention:OP",
    ("attention", "cpp"): "diffusion_engine.backends.attention:CPP",
    ("attention", "triton"): "diffusion_engine.kernels.attention:TRITON",
    ("attention", "cuda"): "diffusion_engine.backends.attention:CUDA",
    ("attention", "sdpa"): "diffusion_engine.backends.sdpa:SDPA",
    ("conv3x3", "torch"): "diffusion_engine.ops.conv3x3:OP",
    ("conv3x3", "cpp"): "diffusion_engine.backends.conv3x3:CPP",
}

# By (op, device), where "*" is every op without a list of its own.
PREFERENCE = {
    ("*", "cpu"): ("cpp", "torch"),
    ("*", "cuda"): ("cuda", "triton", "torch"),
    ("attention", "cuda"): ("sdpa", "cuda", "triton", "torch"),
}
