"""An engine in a web server: POST /samples answers with a PNG.

    pip install '.[serve]'
    uvicorn --app-dir examples fastapi_app:app
    curl -d '{"solver": "unipc", "steps": 8}' 'localhost:8000/samples?digit=3&seed=7' \\
        -H 'content-type: application/json' -o 3.png
"""

from contextlib import asynccontextmanager
from io import BytesIO

from fastapi import FastAPI, HTTPException, Response
from PIL import Image
from torch import Tensor

from diffusion_engine import Engine, Spec
from diffusion_engine.engine import QueueFull
from diffusion_engine.zoo import load_network


@asynccontextmanager
async def lifespan(app: FastAPI):
    with Engine(load_network("digits"), capacity=16, max_queue=256) as app.state.engine:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/samples")
async def samples(spec: Spec, digit: int, seed: int = 0) -> Response:
    try:
        result = await app.state.engine.submit(spec, seeds=[seed], condition=digit)
    except QueueFull as error:
        raise HTTPException(503, str(error)) from None
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    return Response(png(result.samples[0]), media_type="image/png")


def png(image: Tensor) -> bytes:
    """Of a grey image [1, H, W] in [-1, 1]."""
    made, levels = BytesIO(), (image[0].clamp(-1.0, 1.0) + 1.0) * 127.5
    Image.fromarray(levels.round().byte().numpy()).save(made, "PNG")
    return made.getvalue()
