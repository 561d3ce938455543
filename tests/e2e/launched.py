"""`finetune` as a script for `accelerate launch`; takes its arguments as JSON, and can be cut off after some epochs.

accelerate (1.15) takes no notice of FSDP where there is no accelerator, and trains with DDP. So this says that there
are GPUs at the one place where it decides; all that follows is FSDP as torch, accelerate and transformers have it.
"""

import json
import os
import sys

from accelerate import DistributedType, PartialState
from torch.distributed.fsdp import FSDPModule

from hf_swin.errors import errors_in_one_sentence
from hf_swin.finetune import finetune
from hf_swin.report import EpochTable


join = PartialState.__init__


def join_as_with_gpus(self, *args, **kwargs):
    join(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


def cut_off_after(epochs):
    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero and state.epoch >= epochs:
            os._exit(9)

    EpochTable.on_save = on_save


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    if os.environ.get("ACCELERATE_USE_FSDP"):
        PartialState.__init__ = join_as_with_gpus
    if "cut_off" in arguments:
        cut_off_after(arguments.pop("cut_off"))
    with errors_in_one_sentence("start again."):
        trainer = finetune(**arguments)
    if trainer.is_world_process_zero():
        split = sorted({type(part).__name__ for part in trainer.model.modules() if isinstance(part, FSDPModule)})
        print(f"ended as one of {PartialState().num_processes}: {PartialState().distributed_type.value} {split}")
