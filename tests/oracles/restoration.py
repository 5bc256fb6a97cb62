"""Float64 loops of DDRM, DAPS and TDS over points (t, alpha, sigma) with given normals, for a dense A."""

import numpy as np


def ddrm(points, denoise, u, s, v, y, sigma_y, eta, eta_b, normals):
    """A = u diag(s) v^T; normals [steps + 1, n] of the components, the first makes the start."""
    n, vt, seen = len(s), v.T, s > 0
    ybar = np.array([u[:, i] @ y / s[i] if seen[i] else 0.0 for i in range(n)])
    g = points[0][2] / points[0][1]
    xbar = np.empty(n)
    for i in range(n):
        if seen[i] and g >= sigma_y / s[i]:
            xbar[i] = ybar[i] + np.sqrt(g**2 - (sigma_y / s[i]) ** 2) * normals[0][i]
        else:
            xbar[i] = g * normals[0][i]
    for k in range(len(points) - 1):
        (_, alpha, sigma), (_, alpha_t, sigma_t) = points[k : k + 2]
        g, h = sigma / alpha, sigma_t / alpha_t
        theta = vt @ denoise(alpha * (vt.T @ xbar), points[k])
        new = np.empty(n)
        for i in range(n):
            z = normals[k + 1][i]
            if not seen[i]:
                mean, std = theta[i] + np.sqrt(1 - eta**2) * h * (xbar[i] - theta[i]) / g, eta * h
            elif h < sigma_y / s[i]:
                mean = theta[i] + np.sqrt(1 - eta**2) * h * (ybar[i] - theta[i]) * s[i] / sigma_y
                std = eta * h
            else:
                mean = (1 - eta_b) * theta[i] + eta_b * ybar[i]
                std = np.sqrt(h**2 - (sigma_y / s[i] * eta_b) ** 2)
            new[i] = mean + std * z
        xbar = new
    return points[-1][1] * (vt.T @ xbar)


def daps(points, inner, denoise, a, y, sigma_y, step, x, langevin, forward):
    """x at points[0]; inner[k] are the points of level k's ODE, langevin [levels, n_steps, n] and forward
    [levels, n] its normals."""
    square = np.linalg.norm(a, 2) ** 2
    for k in range(len(points) - 1):
        for p, q in zip(inner[k], inner[k][1:], strict=False):
            x0 = denoise(x, p)
            x = q[1] * x0 + q[2] / p[2] * (x - p[1] * x0)
        hat = denoise(x, inner[k][-1])
        r = points[k][2] / points[k][1]
        e = step / (1 / r**2 + square / sigma_y**2)
        x0 = hat
        for z in langevin[k]:
            slope = (x0 - hat) / r**2 - a.T @ (y - a @ x0) / sigma_y**2
            x0 = x0 - e * slope + np.sqrt(2 * e) * z
        x = points[k + 1][1] * x0 + points[k + 1][2] * forward[k]
    return x


def tds(points, denoise, jacobian, a, y, sigma_y, resample, x, normals, uniforms):
    """x [K, n]; normals [steps, K, n]; jacobian(point) of a denoiser that is affine."""
    count, log_w, ess = len(x), np.zeros(len(x)), []

    def twist(x, p):
        v = sigma_y**2 + p[2] ** 2 / (p[1] ** 2 + p[2] ** 2)
        x0 = np.array([denoise(each, p) for each in x])
        left = y - x0 @ a.T
        log_p = -0.5 * (left**2).sum(1) / v - 0.5 * len(y) * np.log(v)
        return x0, log_p, left @ a @ jacobian(p) / v, left

    for k in range(len(points) - 1):
        s, t = points[k : k + 2]
        x0, log_p, slope, left = twist(x, s)
        log_w = log_w + log_p
        last = k + 2 == len(points)
        if t[2] == 0:
            log_w += -0.5 * (left**2).sum(1) / sigma_y**2 - len(y) * np.log(sigma_y) - log_p
        w = np.exp(log_w - log_w.max())
        ess.append(w.sum() ** 2 / (w**2).sum())
        pick = np.arange(count)
        if last or ess[-1] < resample * count:
            ends = np.cumsum(w / w.sum())
            places = (np.arange(count) + uniforms[k]) / count
            pick = np.minimum(np.searchsorted(ends, places, side="right"), count - 1)
            log_w = np.zeros(count)
        x, x0, slope, log_p = x[pick], x0[pick], slope[pick], log_p[pick]
        if t[2] == 0:
            x = x0 * t[1]
            continue
        h = np.log(t[1] / t[2]) - np.log(s[1] / s[2])
        c2 = t[2] ** 2 * (1 - np.exp(-2 * h))
        keep = np.sqrt(t[2] ** 2 - c2) / s[2]
        mean = t[1] * x0 + keep * (x - s[1] * x0)
        shift = (t[1] - keep * s[1]) * s[2] ** 2 / s[1] * slope
        x = mean + shift + np.sqrt(c2) * normals[k]
        p = -0.5 * ((x - mean) ** 2).sum(1) / c2
        q = -0.5 * ((x - mean - shift) ** 2).sum(1) / c2
        log_w = log_w + p - q - log_p
    return x, ess
