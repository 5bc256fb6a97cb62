"""Requests that are wrong, each with the status of its answer: (name, method, path, body, status, headers).

A body is a value of JSON, or bytes as they are.
"""

import base64
import json
import struct

import numpy as np
import safetensors.numpy

SAMPLES, IMAGES = "/v1/samples", "/v1/images/generations"
DEEP = 10_000


def tensors(header, content=b""):
    """The base64 of a safetensors file, of whatever header."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return {"tensors": base64.b64encode(struct.pack("<Q", len(head)) + head + content).decode()}


def arrays(**named):
    return {"tensors": base64.b64encode(safetensors.numpy.save(named)).decode()}


def about(dtype, shape, begin, end):
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}


def spec(**keys):
    return {"spec": keys}


def option(solver, **options):
    return spec(solver={"name": solver, "options": options})


ONE = np.ones((1, 1, 32, 32), np.float32)
# What takes long to be read as values, the first by comparing each with each.
MANY_NAMES = b"{" + b"".join(b'"k%d":1,' % i for i in range(16_000)) + b'"k15999":1}'
MANY_VALUES = b'{"condition":[' + b"1," * 4_000_000 + b"1]}"
MANY_LISTS = b'{"spec":{"steps":[' + (b"[" * 40 + b"]" * 40 + b",") * 50_000 + b"1]}}"

# Bodies that are no JSON objects.
RAW = [
    (b"", 400), (b" ", 400), (b"{", 400), (b"}", 400), (b"{}{}", 400), (b"{]", 400), (b"[1,]", 400),
    (b"{'n': 1}", 400), (b'{"n": 1,}', 400), (b'{"n": 01}', 400), (b'{"n": +1}', 400), (b'{"n": .5}', 400),
    (b'{"n": 0x1}', 400), (b'{"n": NaN}', 400), (b'{"n": Infinity}', 400), (b'{"n": -Infinity}', 400),
    (b'{"n": nan}', 400), (b"\xff\xfe{}", 400), (b'{"n": "\xff"}', 400), (b'{"a\x00": 1}', 400),
    (b"\xef\xbb\xbf{}", 400), (b"{} // done", 400), (b"null", 422), (b"true", 422), (b"1", 422),
    (b'"{}"', 422), (b"[]", 422), (b"[{}]", 422), (b'{"n": 1, "n": 2}', 422),
    (b'{"spec": {"steps": 1, "steps": 2}}', 422), (b'{"n": ' + b"9" * 5000 + b"}", 422),
    (b'{"seed": ' + b"9" * 30 + b"}", 422), (b'{"n": 1e400}', 422), (b'{"guidance": 1e999}', 422),
    (b'{"guidance": -1e999}', 422), (b"[" * DEEP, 400), (b'{"spec":' * DEEP, 400),
    (b'{"spec":' + b"[" * 900 + b"]" * 900 + b"}", 422), (b'{"model": "\\ud800"}', 400),
    (MANY_NAMES, 422), (MANY_VALUES, 413), (MANY_LISTS, 413), (b'{"priority": 0.' + b"1" * 10**6 + b"}", 422),
    (b'{"\\ud800": 1}', 400), (b'{"spec": {"solver": "\\udfff"}}', 400),
    (b'{"spec": {"grid": "\\ud800"}}', 400), (b'{"' + b"k" * 100_000 + b'": 1}', 422),
]  # fmt: skip

# Values of the native body.
NATIVE = [
    {"modle": "digits"}, {"model": 1}, {"model": ["digits"]}, {"model": True}, {"n": 0}, {"n": -1},
    {"n": 1.5},
    {"n": "1"}, {"n": True}, {"n": [1]}, {"n": 65}, {"n": 10**12}, {"n": {}}, {"seed": -1}, {"seed": 2**64},
    {"seed": 1.0}, {"seed": "1"}, {"seed": True}, {"seed": 2**64 - 1, "n": 2}, {"seed": 1, "seeds": [1]},
    {"seeds": []}, {"seeds": 1}, {"seeds": [-1]}, {"seeds": [2**64]}, {"seeds": [1.5]}, {"seeds": [None]},
    {"seeds": ["1"]}, {"seeds": list(range(65))}, {"seeds": [1], "n": 2}, {"seeds": [[1]]},
    {"seeds": "12"}, {"condition": -1}, {"condition": 2**31}, {"condition": 1.5}, {"condition": "3"},
    {"condition": True}, {"condition": [1, 2], "n": 3}, {"condition": [[1]]}, {"condition": {"class": 1}},
    {"condition": [None]}, {"guidance": "2"}, {"guidance": True}, {"guidance": []}, {"guidance": [[1.0]]},
    {"guidance": [1.0, 2.0], "n": 3}, {"guidance": {"scale": 2}}, {"guidance": [None]},
    {"compose": []}, {"compose": 3}, {"compose": [[3]]}, {"compose": [[3, 1.0, 2.0]]},
    {"compose": [["a", 1.0]]},
    {"compose": [[3, "b"]]}, {"compose": [[3, 1.0]] * 17}, {"compose": [[[1, 2, 3], 1.0]]},
    {"adapter": "../weights"}, {"adapter": 1}, {"adapter": ""}, {"adapter": "a" * 65},
    {"adapter": "http://host/a"}, {"priority": "high"}, {"priority": 1e9}, {"priority": True},
    {"deadline": 0}, {"deadline": -1}, {"deadline": "soon"}, {"preview": -1}, {"preview": 1.5},
    {"preview": 10**9},
    {"stream": 1}, {"stream": "true"}, {"wait": 0}, {"wait": None}, {"stream": True, "wait": False},
    {"spec": 3}, {"spec": []}, {"spec": "no_such_solver"}, {"spec": ""}, {"spec": "os:system"},
    {"spec": "diffusion_engine.solvers:DDIM"}, {"spec": "../ddim"}, {"spec": "ddim\x00"},
    {"spec": "ddim" * 100},
    spec(solver="mine:Solver"), spec(solver={"name": "mine.module:Solver", "options": {}}),
    spec(solver={"name": "ddim"}), spec(solver={"name": "ddim", "options": {}, "code": "1"}),
    spec(solver=None), spec(solver=["ddim"]), spec(stepz=3), spec(steps=0), spec(steps=-1), spec(steps=1.5),
    spec(steps=True), spec(steps=1001), spec(steps=10**30), spec(steps="20"), spec(steps=None),
    spec(times=[]), spec(times=[1.0]), spec(times=[0.5, 1.0]), spec(times=["a", "b"]), spec(times=5),
    spec(times=[1.0] * 3000), spec(times=[[1.0, 2.0]]), spec(sigmas=[]), spec(sigmas=[1, 2, 3]),
    spec(sigmas=["a"]), spec(sigmas=[-1.0, -2.0]), spec(grid="nothing"), spec(grid=1), spec(end="never"),
    spec(guidance="high"), spec(guidance=[]), spec(guidance=[1.0] * 100), spec(interval=[1]),
    spec(interval=[2, 1]), spec(interval="all"), spec(clip=[1, -1]), spec(clip="tight"), spec(clip=[1]),
    spec(dtype="int8"), spec(dtype="complex64"), spec(dtype="torch"), spec(start="now"), spec(noised=1),
    spec(encoding=-1), spec(encoding=65), spec(encoding=10**9), spec(noise="pink"), spec(noise=[1.0]),
    spec(classifier_scale="x"), option("ddim", eta="a"), option("ddim", eta=[1]), option("ddim", etaa=1.0),
    option("ald", n_steps=10**9), option("ald", n_steps=600), spec(solver="ald", steps=101),
    spec(solver="ddim", steps=200, encoding=64), option("consistency", scales=10**12),
    option("lcm", original=-(10**9)),
    option("unipc", disable_corrector=list(range(100))), option("consistency", indices=[[[[1]]]]),
    option("ddim", **{f"o{i}": i for i in range(100)}), option("ddpm", variance="a" * 10_000),
    option("ddim", __class__="x"), option("ddim", self=1), option("ddim", compile=True),
    option("ddim", accelerate=True),
    option("ddim", device="cpu"), option("ddim", executor="native"),
    {"tensors": 1}, {"tensors": ""}, {"tensors": "!!!"}, {"tensors": "AAAA"}, {"tensors": "é"},
    {"tensors": base64.b64encode(b"\x80\x04\x95cposix\nsystem\n.").decode()},
    {"tensors": base64.b64encode(b"PK\x03\x04" + b"\x00" * 60).decode()},
    {"tensors": base64.b64encode(struct.pack("<Q", 2**63) + b"{}").decode()},
    tensors(b"{"), tensors(b"[]"), tensors(about("F32", [1], 0, 4)), tensors(about("F32", [2], 0, 4),
    b"abcd"),
    tensors(about("F32", [2**40, 2**40], 0, 4), b"abcd"), tensors(about("F32", [-1], 0, 4), b"abcd"),
    tensors(about("F32", [1], 4, 8), b"abcdefgh"), tensors(about("F99", [1], 0, 4), b"abcd"),
    tensors(about("I64", [1], 0, 8), b"abcdefgh"), tensors(about("F32", [0], 0, 0)),
    arrays(y=ONE), arrays(x=ONE.astype(np.float64)), arrays(x=np.ones((1,) * 9, np.float32)),
    arrays(x=np.float32(1.0) * np.ones((1, 3, 32, 32), np.float32)), arrays(x=np.full_like(ONE, np.nan)),
    arrays(x=ONE, weights=ONE), arrays(mask=ONE), arrays(known=ONE), arrays(mask=ONE * 7, known=ONE),
    {"condition": 1} | arrays(condition=ONE), arrays(x=np.ones((65, 1, 32, 32), np.float32)),
]  # fmt: skip

# What only a network can say.
NATIVE += [
    {"condition": 11}, {"condition": 2**30}, {"adapter": "none"}, {"spec": "cld_em"}, {"spec": "genie"},
    {"spec": "ddgan"}, spec(dtype="float16"), {"condition": [3, 11]}, spec(start=7.0),
    spec(times=[9.0, 0.5]),
]  # fmt: skip

PICTURES = [
    {}, {"prompt": 3}, {"prompt": None}, {"prompt": ["3"]}, {"prompt": "a" * 40_000}, {"prompt": "10"},
    {"prompt": "3.0"}, {"prompt": "٣"}, {"prompt": "-1"}, {"prompt": "9" * 5000}, {"prompt": "cat"},
    {"prompt": "3", "n": 0}, {"prompt": "3", "n": 11}, {"prompt": "3", "n": "2"}, {"prompt": "3", "n": 1.5},
    {"prompt": "3", "size": "32"}, {"prompt": "3", "size": "1024x1024"}, {"prompt": "3", "size": 32},
    {"prompt": "3", "size": "32x32x32"}, {"prompt": "3", "response_format": "url"},
    {"prompt": "3", "response_format": "png"}, {"prompt": "3", "num_inference_steps": 0},
    {"prompt": "3", "num_inference_steps": 201}, {"prompt": "3", "num_inference_steps": "20"},
    {"prompt": "3", "guidance_scale": 21}, {"prompt": "3", "guidance_scale": -1},
    {"prompt": "3", "guidance_scale": "7"}, {"prompt": "3", "solver": "a:b"}, {"prompt": "3", "solver": 1},
    {"prompt": "3", "solver": "none"}, {"prompt": "3", "negative_prompt": "4"}, {"prompt": "3", "seed": -1},
    {"prompt": "3", "seed": 2**64}, {"prompt": "3", "stream": "yes"}, {"prompt": "3", "partial_images": 4},
    {"prompt": "3", "stream": True, "partial_images": -1}, {"prompt": "3", "partial_images": 2},
    {"prompt": "3", "quality": "hd"}, {"prompt": "3", "background": "transparent"},
    {"prompt": "3", "output_format": "webp"}, {"prompt": "3", "image": "http://169.254.169.254/"},
    {"prompt": "3", "user": 1}, {"prompt": "3", "model": 7},
]  # fmt: skip

TYPE = {"content-type": "application/json"}
WHERE = [
    ("GET", "/page", None, 404), ("GET", "/v1", None, 404), ("GET", "/v1/", None, 404),
    ("GET", "/docs", None, 404),
    ("GET", "/redoc", None, 404), ("GET", "/v1/models/", None, 404), ("GET", "/v1/models/none", None, 404),
    ("GET", "/v1/models/..%2f..%2fetc", None, 404), ("GET", "/v1/models/%00", None, 404),
    ("GET", "/v1/requests/none", None, 404), ("GET", "/v1/requests/" + "a" * 3000, None, 404),
    ("GET", "/../../etc/passwd", None, 404), ("GET", "/static/../app.py", None, 404),
    ("DELETE", "/v1/requests/none", None, 404), ("DELETE", "/v1/requests/%2e%2e", None, 404),
    ("DELETE", "/v1/models/digits", None, 405), ("GET", SAMPLES, None, 405), ("PUT", SAMPLES, {}, 405),
    ("PATCH", IMAGES, {}, 405), ("OPTIONS", SAMPLES, None, 405), ("POST", "/readyz", {}, 405),
    ("POST", "/metrics", {}, 405), ("POST", "/v1/images/edits", {}, 404), ("TRACE", "/livez", None, 405),
    ("POST", "/v1/samples/", {}, 404), ("BREW", "/livez", None, 405),
]  # fmt: skip
HEADS = [
    ({"content-type": "text/plain"}, 415), ({"content-type": "application/x-www-form-urlencoded"}, 415),
    ({"content-type": ""}, 415), ({"content-type": "application/octet-stream"}, 415),
    ({"content-type": "multipart/form-data; boundary=x"}, 415), ({"content-type": "application/jsonp"},
    415),
    (TYPE | {"accept": "image/png"}, 406), (TYPE | {"accept": "text/html"}, 406),
    (TYPE | {"accept": "x"}, 406),
    (TYPE | {"accept": "application/x-pickle"}, 406), (TYPE | {"host": "evil.example"}, 421),
    (TYPE | {"x": "y" * 20_000}, 431),
]  # fmt: skip


def cases():
    """All of them."""
    made = [("raw", "POST", SAMPLES, body, status, TYPE) for body, status in RAW]
    made += [("native", "POST", SAMPLES, body, 422, TYPE) for body in NATIVE]
    made += [("pictures", "POST", IMAGES, body, 422, TYPE) for body in PICTURES]
    made += [("where", method, path, body, status, TYPE) for method, path, body, status in WHERE]
    made += [("head", "POST", SAMPLES, {}, status, headers) for headers, status in HEADS]
    return made + [
        ("raw pictures", "POST", IMAGES, body, 400, TYPE) for body, status in RAW if status == 400
    ]
