"""A script as other people wrote them for the published code: both stages on both data sets, by the published names.

    python drop_in.py CLIP_FILE

It lies in the project's root and prints what it measured as JSON. Its imports and its forms of call are those of the
published clip_fine_tune.py, combiner_train.py and validate.py: what other scripts rely on, so nothing here may be
changed to fit our modules.
"""

import json
import sys

import clip
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.data import DataLoader
from tqdm import tqdm

from cirr_test_submission import generate_cirr_test_submissions
from combiner import Combiner
from data_utils import CIRRDataset, FashionIQDataset, base_path, squarepad_transform, targetpad_transform
from utils import (
    collate_fn,
    device,
    element_wise_sum,
    extract_index_features,
    generate_randomized_fiq_caption,
    save_model,
    set_train_bar_description,
    update_train_running_results,
)
from validate import compute_cirr_val_metrics, compute_fiq_val_metrics

CATEGORIES = ["dress", "toptee", "shirt"]


class Experiment:
    """A CLIP that both stages train on one data set, in a run folder of its own."""

    def __init__(self, name, clip_file, transform):
        self.is_fashioniq = name == "FashionIQ"
        self.clip_model, _ = clip.load(clip_file, device=device, jit=False)
        self.clip_model = self.clip_model.eval().float()
        self.preprocess = transform(self.clip_model.visual.input_resolution)
        self.training_path = base_path / "models" / f"of_somebody_on_{name}"
        self.training_path.mkdir(exist_ok=False, parents=True)

    def training_batches(self, results):
        """Yield images, texts and targets of an epoch, and report after each batch as the published loops do."""
        if self.is_fashioniq:
            dataset = FashionIQDataset("train", CATEGORIES, "relative", self.preprocess)
        else:
            dataset = CIRRDataset("train", "relative", self.preprocess)
        loader = DataLoader(
            dataset=dataset,
            batch_size=8,
            num_workers=0,
            pin_memory=False,
            collate_fn=collate_fn,
            drop_last=True,
            shuffle=True,
        )
        train_bar = tqdm(loader, ncols=150)
        for reference_images, target_images, captions in train_bar:
            texts = captions
            if self.is_fashioniq:
                flattened_captions = np.array(captions).T.flatten().tolist()
                texts = generate_randomized_fiq_caption(flattened_captions)
            text_inputs = clip.tokenize(texts, context_length=77, truncate=True).to(device, non_blocking=True)
            yield reference_images.to(device), text_inputs, target_images.to(device)
            set_train_bar_description(train_bar, 0, 1, results)

    def train(self, optimizer, logits_of):
        """Train for an epoch; return the mean loss. `logits_of` takes images, texts and targets of a batch."""
        results = {"images_in_epoch": 0, "accumulated_train_loss": 0}
        crossentropy_criterion = nn.CrossEntropyLoss()
        for reference_images, text_inputs, target_images in self.training_batches(results):
            images_in_batch = reference_images.size(0)
            optimizer.zero_grad()
            logits = logits_of(reference_images, text_inputs, target_images)
            ground_truth = torch.arange(images_in_batch, dtype=torch.long, device=device)
            loss = crossentropy_criterion(logits, ground_truth)
            loss.backward()
            optimizer.step()
            update_train_running_results(results, loss, images_in_batch)
        return float(results["accumulated_train_loss"] / results["images_in_epoch"])

    def fine_tune(self):
        """Train CLIP for an epoch; return the mean loss."""

        def logits_of(reference_images, text_inputs, target_images):
            reference_features = self.clip_model.encode_image(reference_images)
            predicted_features = element_wise_sum(reference_features, self.clip_model.encode_text(text_inputs))
            target_features = F.normalize(self.clip_model.encode_image(target_images))
            return 100 * predicted_features @ target_features.T

        learning = filter(lambda parameter: parameter.requires_grad, self.clip_model.parameters())
        return self.train(
            optim.AdamW([{"params": learning, "lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-7}]), logits_of
        )

    def train_combiner(self, combiner):
        """Train a Combiner for an epoch on the frozen CLIP; return the mean loss."""

        def logits_of(reference_images, text_inputs, target_images):
            with torch.no_grad():
                reference_features = self.clip_model.encode_image(reference_images)
                target_features = self.clip_model.encode_image(target_images)
                text_features = self.clip_model.encode_text(text_inputs)
            return combiner(reference_features, text_features, target_features)

        combiner.train()
        return self.train(optim.Adam(combiner.parameters(), lr=1e-3), logits_of)

    def validate(self, combining_function):
        """Return {category: recalls}."""
        if self.is_fashioniq:
            return {category: self.validate_category(category, combining_function) for category in CATEGORIES}
        relative_val_dataset = CIRRDataset("val", "relative", self.preprocess)
        classic_val_dataset = CIRRDataset("val", "classic", self.preprocess)
        index_features, index_names = extract_index_features(classic_val_dataset, self.clip_model)
        (
            group_recall_at1,
            group_recall_at2,
            group_recall_at3,
            recall_at1,
            recall_at5,
            recall_at10,
            recall_at50,
        ) = compute_cirr_val_metrics(
            relative_val_dataset, self.clip_model, index_features, index_names, combining_function
        )
        of_groups = [group_recall_at1, group_recall_at2, group_recall_at3]
        return {"rc2": [*of_groups, recall_at1, recall_at5, recall_at10, recall_at50]}

    def validate_category(self, category, combining_function):
        """Return both recalls of a category of FashionIQ."""
        relative_val_dataset = FashionIQDataset("val", [category], "relative", self.preprocess)
        classic_val_dataset = FashionIQDataset("val", [category], "classic", self.preprocess)
        index_features, index_names = extract_index_features(classic_val_dataset, self.clip_model)
        recall_at10, recall_at50 = compute_fiq_val_metrics(
            relative_val_dataset, self.clip_model, index_features, index_names, combining_function
        )
        return [recall_at10, recall_at50]

    def run(self):
        """Train both stages and judge CLIP before, CLIP after, and the Combiner; return the numbers."""
        measured = {"raw": self.validate(element_wise_sum)}
        save_model("raw", 0, self.clip_model, self.training_path)
        losses = [self.fine_tune()]
        measured["tuned"] = self.validate(element_wise_sum)
        save_model("tuned", 0, self.clip_model, self.training_path)

        combiner = Combiner(self.clip_model.visual.output_dim, 16, 32).to(device, non_blocking=True)
        losses.append(self.train_combiner(combiner))
        combiner.eval()
        measured["combiner"] = self.validate(combiner.combine_features)
        save_model("combiner", 0, combiner, self.training_path)
        if not self.is_fashioniq:
            generate_cirr_test_submissions(combiner.combine_features, "somebody", self.clip_model, self.preprocess)
        return {"folder": str(self.training_path), "losses": losses, "recalls": measured}


if __name__ == "__main__":
    torch.manual_seed(0)
    transforms = {"CIRR": lambda dim: targetpad_transform(1.25, dim), "FashionIQ": squarepad_transform}
    print(json.dumps({name: Experiment(name, sys.argv[1], of).run() for name, of in transforms.items()}))
