"""`Worker`: what it does with the messages of its server, whose socket is a list here."""

import asyncio
import socket

from worker_cases import asked, network, until

from diffusion_engine.workers.inprocess import InProcess
from diffusion_engine.workers.wire import Done, Heard, Run, Watch
from diffusion_engine.workers.worker import Worker


class Sent(list):
    send = list.append

    async def drained(self):
        pass


def test_who_reads_before_a_request_has_begun_is_told_its_rows():
    async def do():
        ours, theirs = socket.socketpair()
        worker = Worker(ours)
        worker.link, worker._service = Sent(), InProcess(network(), 4)
        await worker._service.start()
        try:
            request = asked(0)
            worker._got(Run(request, False))
            worker._got(Watch(request.id))
            worker._got(Watch(request.id))
            await until(lambda: not worker._tasks)
        finally:
            await worker._service.close(0.0)
            ours.close()
            theirs.close()
        return worker

    worker = asyncio.run(do())
    told = [message.told.kind for message in worker.link if isinstance(message, Heard)]
    assert told == ["started", *["row"] * 5]
    assert sum(isinstance(message, Done) for message in worker.link) == 1
    assert not worker._watched and not worker._coming and not worker._running
