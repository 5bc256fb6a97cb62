"""Every implementation of every op, and which to prefer where. Strings: nothing is imported here."""

IMPLEMENTATIONS = {
    ("step", "torch"): "diffusion_engine.ops.step:bind_reference",
    ("step", "cpp"): "diffusion_engine.backends.native:bind_step_cpp",
    ("step", "triton"): "diffusion_engine.kernels.step:bind_step",
    ("step", "cuda"): "diffusion_engine.backends.native:bind_step_cuda",
    ("noise", "torch"): "diffusion_engine.ops.noise:bind_reference",
    ("noise", "cpp"): "diffusion_engine.backends.native:bind_noise_cpp",
    ("noise", "triton"): "diffusion_engine.kernels.noise:bind_noise",
    ("noise", "cuda"): "diffusion_engine.backends.native:bind_noise_cuda",
    ("brownian", "torch"): "diffusion_engine.ops.brownian:bind_reference",
    ("brownian", "cpp"): "diffusion_engine.backends.native:bind_brownian_cpp",
    ("brownian", "triton"): "diffusion_engine.kernels.brownian:bind_brownian",
    ("brownian", "cuda"): "diffusion_engine.backends.native:bind_brownian_cuda",
    ("group_norm", "torch"): "diffusion_engine.ops.group_norm:bind_reference",
    ("group_norm", "cpp"): "diffusion_engine.backends.layers:bind_group_norm_cpp",
    ("group_norm", "triton"): "diffusion_engine.kernels.group_norm:bind_group_norm",
    ("group_norm", "cuda"): "diffusion_engine.backends.layers:bind_group_norm_cuda",
    ("attention", "torch"): "diffusion_engine.ops.attention:bind_reference",
    ("attention", "cpp"): "diffusion_engine.backends.layers:bind_attention_cpp",
    ("attention", "triton"): "diffusion_engine.kernels.attention:bind_attention",
    ("attention", "cuda"): "diffusion_engine.backends.layers:bind_attention_cuda",
    ("attention", "sdpa"): "diffusion_engine.backends.sdpa:bind_attention",
    ("conv3x3", "torch"): "diffusion_engine.ops.conv3x3:bind_reference",
    ("conv3x3", "cpp"): "diffusion_engine.backends.conv3x3:bind_conv3x3_cpp",
}

# By (op, device), where "*" is every op without a list of its own.
PREFERENCE = {
    ("*", "cpu"): ("cpp", "torch"),
    ("*", "cuda"): ("cuda", "triton", "torch"),
    ("attention", "cuda"): ("sdpa", "cuda", "triton", "torch"),
}
