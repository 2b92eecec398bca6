import json

import numpy as np

from us3l.data.store import DatasetSource, SplitSource, write_store
from us3l.pipeline.provenance import record
from us3l.pipeline.stages.seals import OpenedSeals
from us3l.stand_in import log
from us3l.utils.records import write_record


def prepare(job, downloads):
    log("prepare", job.data.name)
    pixels = json.dumps(job.stage_params).encode()
    images = np.frombuffer(pixels[:16], np.uint8).reshape(1, 4, 4, 1)
    train, test = (SplitSource(np.zeros(n, np.int64), images.repeat(n, 0)) for n in (1, 100))
    data = write_store(job.data.folder, DatasetSource(("one",), (4, 4, 1), train, test))
    [identity] = job.identities(OpenedSeals(data)).values()
    write_record(job.record, {**record(identity, None, 0.0), "data": data})
