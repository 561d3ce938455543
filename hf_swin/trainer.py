# Copyright 2026 The hf_swin authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The Trainer of transformers with what image classifiers are trained with: sampling, losses, averaged weights."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import default_collate
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from .errors import UserError
from .parameters import parameter_groups
from .processes import this_process
from .recipe import Recipe
from .rundir import note_files
from .transforms import EpochSampler, one_seed


AVERAGE = "average.safetensors"
# Files named when a loss is no number; all of the batch's go into a file.
NAMED = 3
REMEDY = "lower --learning-rate, or --clip, and add --resume to go on from the last finished epoch"
FAILED = "failed_batch.txt"
# What a group of parameters is given by the recipe.
GIVEN = ("initial_lr", "weight_decay")


def class_weights(labels: Any, num_labels: int, multi_label: bool) -> torch.Tensor:
    """Return one weight a class (num_labels,), inverse to how often it occurs and 1 on the mean over the images.

    For several labels an image it is how many images lack the label for each that has it.
    """
    numbers = np.concatenate([np.atleast_1d(np.asarray(label, dtype=int)) for label in labels])
    counts = np.maximum(np.bincount(numbers, minlength=num_labels), 1)
    if multi_label:
        return torch.tensor((len(labels) - counts) / counts, dtype=torch.float32).clamp(min=1e-3)
    return torch.tensor(len(numbers) / (num_labels * counts), dtype=torch.float32)


def _warmed_up(decay: float) -> Callable:
    """An exponential mean that forgets its first values sooner, so that a short run is not held back by its start."""

    def update(means: list[torch.Tensor], values: list[torch.Tensor], count: torch.Tensor | int) -> None:
        kept = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(means, values, 1 - kept)

    return torch.no_grad()(update)


class Clock(TrainerCallback):
    """The seconds that steps took, without evaluating and saving, and how many there were since the run went on."""

    def __init__(self):
        self.seconds, self.steps = 0.0, 0

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Start."""
        self.started, self.before = time.perf_counter(), state.global_step

    def on_epoch_end(self, args, state, control, **kwargs):
        """Stop."""
        self.seconds += time.perf_counter() - self.started
        self.steps += state.global_step - self.before


class ImageTrainer(Trainer):
    """A Trainer that follows a `Recipe`; its datasets are `ImageRows`.

    `frozen` are modules that do not learn; `waited` is the time in seconds spent on waiting for training batches.
    """

    def __init__(self, *, recipe: Recipe, multi_label: bool = False, frozen: Sequence[nn.Module] = (), **kwargs: Any):
        rows, num_labels = kwargs["train_dataset"], kwargs["model"].config.num_labels
        self.recipe, self.multi_label, self.frozen = recipe, multi_label, frozen
        self.waited, self.clock, self.average, self.weights = 0.0, Clock(), None, None
        if recipe.balance != "none":
            self.weights = class_weights(rows.split["label"], num_labels, multi_label)
        # One process works on one GPU: with several in one process the Trainer would multiply the batch.
        kwargs["args"]._n_gpu = min(kwargs["args"].n_gpu, 1)
        super().__init__(data_collator=default_collate, callbacks=[self.clock], **kwargs)
        # Every update has the same number of images (EpochSampler), so means of means are means.
        self.model_accepts_loss_kwargs = False
        if self.in_pieces and (recipe.ema or hasattr(self.model, "merge_and_unload")):
            wish, remedy = (f"ema {recipe.ema}", "ema 0") if recipe.ema else ("the speed 'lora'", "the speed 'full'")
            raise UserError(f"{wish} needs whole weights, which FSDP and DeepSpeed split: leave them out, or {remedy}.")
        if self.is_fsdp_enabled:
            self._choose_fsdp_units(self.accelerator.state.fsdp_plugin)

    def _choose_fsdp_units(self, plugin: Any) -> None:
        """Unless the user names them: all that must stay whole but embeddings, a part of which accelerate takes."""
        if plugin.transformer_cls_names_to_wrap is None:
            names = [name for name in self.model._no_split_modules if not name.endswith("Embeddings")]
            plugin.transformer_cls_names_to_wrap = names

    @property
    def in_pieces(self) -> bool:
        """Whether each process holds a part of the weights only."""
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def _get_train_sampler(self, train_dataset=None) -> EpochSampler:
        rows, weights = self.train_dataset, None
        if self.recipe.balance == "sampling":
            weights = torch.stack([self._rarity(label) for label in rows.split["label"]])
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return EpochSampler(len(rows), batch, self.args.seed, weights)

    def _rarity(self, label: int | list[int]) -> torch.Tensor:
        """The weight of an image: that of its class, of its rarest label, or 1 without any."""
        return self.weights[label].max() if label != [] else torch.tensor(1.0)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over groups of parameters by depth and decay."""
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, numbers = self.get_optimizer_cls_and_kwargs(self.args, model)
            groups = parameter_groups(model, self.recipe, self.model.config)
            self.optimizer = optimizer_class(groups, **numbers)
            if self.recipe.ema:
                self.average = AveragedModel(self.model, multi_avg_fn=_warmed_up(self.recipe.ema))
                self.optimizer.register_step_post_hook(lambda *_: self.average.update_parameters(self.model))
        return self.optimizer

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The recipe's loss while training; plain cross-entropy, or its binary form, while evaluating."""
        inputs = {name: value for name, value in inputs.items() if name != "rows"}
        labels = inputs.pop("labels")
        for module in self.frozen:
            module.eval()  # a part that does not learn does not drop anything either
        outputs = model(**inputs)
        loss = self._loss(outputs.logits.float(), labels, model.training)
        return (loss, outputs) if return_outputs else loss

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, training: bool) -> torch.Tensor:
        weights = self.weights if training and self.recipe.balance == "loss" else None
        weights = weights if weights is None else weights.to(logits.device)
        if self.multi_label:
            return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)
        smoothing = self.recipe.label_smoothing if training else 0.0
        # Not the mean that weights would divide by: it differs between the parts of an update.
        loss = F.cross_entropy(logits, labels, weights, label_smoothing=smoothing, reduction="sum")
        return loss / len(labels)

    def _init_training_state(self, max_steps, num_update_steps_per_epoch, num_train_epochs, *args) -> tuple[int, int]:
        begun = super()._init_training_state(max_steps, num_update_steps_per_epoch, num_train_epochs, *args)
        waits = [entry for entry in self.callback_handler.callbacks if isinstance(entry, EarlyStoppingCallback)]
        for wait in waits:
            wait.early_stopping_patience = self.recipe.patience  # not that of the checkpoint
        # The Trainer forgets that patience had ended already, and would go on for an epoch.
        ended = any(wait.early_stopping_patience_counter >= wait.early_stopping_patience for wait in waits)
        return (num_train_epochs, 0) if ended else begun

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        ours = [{key: group[key] for key in GIVEN} for group in self.optimizer.param_groups]
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint and not self.is_deepspeed_enabled:
            self._give_rates(ours)
        if self.average is not None and checkpoint:
            self.average.load_state_dict(load_file(Path(checkpoint, AVERAGE)))

    def _give_rates(self, ours: list[dict[str, float]]) -> None:
        """Go on with the rates that were asked for now, not with those in the checkpoint."""
        schedule = self.lr_scheduler
        schedule.base_lrs = [group["initial_lr"] for group in ours]
        for group, numbers, factor in zip(self.optimizer.param_groups, ours, schedule.lr_lambdas, strict=True):
            group |= {**numbers, "lr": numbers["initial_lr"] * factor(schedule.last_epoch)}

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.average is not None and self.args.should_save:
            save_file(self.average.state_dict(), Path(output_dir, AVERAGE))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        # The Trainer takes a checkpoint for the best if its folder is there, which FSDP makes only after that question.
        Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}").mkdir(parents=True, exist_ok=True)
        super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        this_process().wait_for_everyone()  # the first then writes the file that makes the checkpoint a complete one
        if self.args.should_save:
            note_files(Path(output_dir))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.average is not None:
            self.average.load_state_dict(load_file(Path(self.state.best_model_checkpoint, AVERAGE)))

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within the block the model has its averaged weights."""
        pairs = list(zip(self.model.parameters(), self.average.module.parameters(), strict=True))
        for ours, mean in pairs:
            ours.data, mean.data = mean.data, ours.data
        try:
            yield
        finally:
            for ours, mean in pairs:
                ours.data, mean.data = mean.data, ours.data

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs):
        """As the Trainer; with the averaged weights while a run that keeps them is under way.

        The loss is that of all answers: several processes fill up their last batches, which a mean of means counts.
        """
        with self._averaged() if self.average is not None else nullcontext():
            output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if isinstance(output.predictions, np.ndarray):
            logits, labels = torch.from_numpy(output.predictions).float(), torch.from_numpy(output.label_ids)
            loss = output.metrics[f"{metric_key_prefix}_loss"] = self._loss(logits, labels, training=False).item()
            if not math.isfinite(loss):  # found here, the weights do not get into a checkpoint
                raise UserError(f"the evaluation loss is {loss} after {self._moment()}: {REMEDY}.")
        return output

    def train(self, *args, **kwargs):
        """As the Trainer; afterwards the model has the averaged weights, if the recipe averages."""
        output = super().train(*args, **kwargs)
        if self.average is not None:
            self.model.load_state_dict(self.average.module.state_dict())
            self.average = None
        return output

    def get_batch_samples(self, *args, **kwargs):
        """As the Trainer, with a clock, and a seed of its own for each update: loaders draw from the same numbers."""
        started = time.perf_counter()
        try:
            return super().get_batch_samples(*args, **kwargs)
        finally:
            self.waited += time.perf_counter() - started
            torch.manual_seed(one_seed(self.args.seed, self.state.global_step, self.args.process_index))

    def timing(self) -> dict[str, float]:
        """Return steps, seconds for each, and the part of them spent waiting for images; nothing without training."""
        steps, seconds = self.clock.steps, self.clock.seconds
        if not steps:
            return {}
        return {"steps": steps, "seconds_per_step": seconds / steps, "waiting_for_data": self.waited / seconds}

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """As the Trainer; raises `UserError` naming step, learning rate and images if the loss is no number."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        losses = self.accelerator.gather(loss.detach()).reshape(-1)  # so that all processes stop, not one
        finite = torch.isfinite(losses)
        if not finite.all():
            rows = self.accelerator.gather(inputs["rows"].to(loss.device)).reshape(len(losses), -1)
            self._not_a_number(losses[~finite][0].item(), rows[~finite].flatten().tolist())
        return loss

    def _moment(self, more: int = 0) -> str:
        return f"step {self.state.global_step + more}, learning rate {self._get_learning_rate():.3g}"

    def _not_a_number(self, loss: float, rows: list[int]) -> None:
        names = self.train_dataset.split.select(rows)["name"][:]
        folder = Path(self.args.output_dir)
        if self.args.should_save:
            (folder / FAILED).write_text("\n".join(names) + "\n")
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        raise UserError(
            f"the loss is {loss} at {self._moment(1)}, on {', '.join(names[:NAMED])}{more}, all named in "
            f"{folder / FAILED}: {REMEDY}."
        )
