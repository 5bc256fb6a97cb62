"""A server on a FakeService, as a process: `python fake_server.py '{"port": 0}' SECONDS_OF_A_REQUEST`.

Prints what `serve --json` prints. SLOW_START of the environment are seconds until it is ready, UNABLE says
why it is not, and with LOST it takes requests no more at once.
"""

import asyncio
import json
import os
import sys

from fake_service import FakeService

from diffusion_engine.server.listen import Unable
from diffusion_engine.server.run import run
from diffusion_engine.server.settings import Settings
from diffusion_engine.workers.errors import ServiceError


class Service(FakeService):
    async def start(self):
        print(json.dumps({"starts": os.getpid()}), flush=True)
        await asyncio.sleep(float(os.environ.get("SLOW_START", 0)))
        if reason := os.environ.get("UNABLE"):
            raise ServiceError(reason)
        await super().start()
        if os.environ.get("LOST"):
            self.gone.set()


def main():
    settings = Settings(**json.loads(sys.argv[1]))
    try:
        code = run(
            Service(slow=float(sys.argv[2])), settings, lambda a: print(json.dumps(a), flush=True)
        )
    except Unable as error:
        sys.exit(str(error))
    assert "torch" not in sys.modules
    sys.exit(code)


main()
