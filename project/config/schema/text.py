"""Keys of the steps from a record to the text that the model reads: experts, alignment, perturbation."""

from dataclasses import dataclass, field
from typing import Literal

from ..registry import bounded


@dataclass
class ExpertsConfig:
    classifier: bool = True
    """Name what an ImageNet classifier recognises in an image; false describes visual attributes alone."""
    top_k: int = bounded(2, minimum=0)
    """Maximum number of class names of the classifier in a description."""
    least_probability: float = bounded(0.05, minimum=0, maximum=1)
    """Least probability of a class name in a description; 0 names all top_k, which loses less information."""
    captioner: str | None = None
    """A hub id or folder of an image(-text)-to-text model; null uses the packaged classifier and visual attributes."""
    revision: str | None = None
    """Commit of the captioner's hub repository; null takes the newest, which may change."""
    prompt: str | None = None
    """Prompt or task token of the captioner; null gives none, for models that only caption."""
    caption_tokens: int = bounded(60, minimum=1)
    """Longest caption, in tokens."""
    batch_size: int = bounded(8, minimum=1)
    """Images per batch of the captioner."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Type of the captioner's weights."""
    device_map: str = "auto"
    """Device of the captioner's weights: auto, cpu, cuda, cuda:1."""
    table: Literal["sentences", "markdown", "json"] = "sentences"
    """How a table is serialised: "The <column> is <value>.", a Markdown table of two columns, or a JSON object."""
    missing_cells: Literal["skip", "say"] = "skip"
    """Leave out a missing cell, or write that it is unknown."""
    max_words: int = bounded(80, minimum=1)
    """Longest description of one modality, in words, so that no modality crowds out another."""


@dataclass
class AlignmentConfig:
    style: bool = True
    """Rewrite the description of each modality in one common style, before the other steps."""
    summary: bool = True
    """Merge the descriptions into one passage."""
    reasoning: bool = True
    """Predict the answer and explain it."""
    serial: bool = False
    """Give the reasoning step the summary only; false gives it the descriptions."""
    exemplar: bool = True
    """Show the output for one training row, made without an example, as the example for every other text."""
    words: int = bounded(80, minimum=1)
    """Longest summary that the prompt asks for, in words; twice as many tokens are allowed."""
    min_fact_recall: float = bounded(0.8, minimum=0, maximum=1)
    """Least share of the source's content words that a style or summary must keep to pass the quality gate."""
    temperature: float = bounded(0.0, minimum=0)
    """Sampling temperature of the first draw; redraws use at least 0.7."""
    attempts: int = bounded(2, minimum=1)
    """Draws of one text before its fallback is used."""


@dataclass
class FreeLBConfig:
    steps: int = bounded(2, minimum=1)
    """Ascent steps, each a forward and a backward pass; 2 cost as many forward samples as two views of a text."""
    step_size: float = bounded(0.1, minimum=0)
    """Length of a step along the gradient, in the norm over a text's embeddings."""
    radius: float = bounded(0.6, minimum=0)
    """Largest norm of the total displacement of a text's embeddings, and of its random start."""


@dataclass
class PerturbationConfig:
    kind: Literal["none", "rules", "paraphrase", "instructions", "all", "freelb"] = "none"
    """How training texts are rewritten. none repeats the clean text, which keeps the compute of a comparison equal; all
    draws from paraphrase and instructions; freelb rewrites nothing and moves the embeddings against the model."""
    stage: Literal["described", "aligned"] = "aligned"
    """What is rewritten: the descriptions before alignment, or the aligned texts."""
    rounds: int = bounded(2, minimum=1)
    """Number of draws per record; epoch e trains on round e mod rounds."""
    weight: float = bounded(1.0, minimum=0)
    """Weight of the loss on the perturbed text; 0 trains on the clean text alone and skips the second pass."""
    num_candidates: int = bounded(1, minimum=1)
    """Candidate rounds per epoch; each record trains on the one with the highest loss. 1 disables selection."""
    consistency: float = bounded(0.0, minimum=0)
    """Weight of the disagreement between the predictions for the clean and the perturbed text."""
    prompts: int = bounded(9, minimum=1)
    """Number of instructions used from each set, counted from its first; the sets of the project have 16."""
    instruction_set: Literal["full", "terse"] = "full"
    """Set of instructions: full sentences, or two to four words (conf/prompts/terse)."""
    level: float = bounded(0.5, minimum=0, maximum=1)
    """Largest share of words and cells that the rules drop."""
    temperature: float = bounded(1.0, minimum=0)
    """Sampling temperature of the rewriting."""
    attempts: int = bounded(2, minimum=1)
    """Draws of one text before its fallback is used."""
    ascent: FreeLBConfig = field(default_factory=FreeLBConfig)
