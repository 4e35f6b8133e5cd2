"""Compare language models and prompts on a few rows before a recording.

    python benchmarks/pilot.py rows=50 llm=qwen2.5-coder-1.5b,qwen2.5-coder-0.5b experiment=demo

Prints one JSON object per model, measured on training rows (alignment.exemplar=false: without the one-shot example):

- facts_kept: share of the descriptions' content words that occur in the first draw of the summary, and in the text
  after the quality gate and its fallback;
- loops, flags, fallbacks: shares of the first draws, and of the texts;
- class_probe: accuracy of TF-IDF and logistic regression on the class, five folds, from the descriptions and from the
  summary;
- modality_probe: accuracy of the same probe on the modality of a description, before and after styling;
- llm_accuracy: share of correct predictions of the model.
"""

import json
import sys
from dataclasses import replace

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, RepeatedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from project.config.compose import load_config
from project.data.rows import read_rows
from project.llm.factory import open_llm
from project.llm.quality_gate import facts_kept
from project.pipeline.alignment import Task, join_parts, summary_task
from project.pipeline.pipeline import open_pipeline


def probe(texts: list[str], labels: list[str], folds, groups=None) -> float:
    """Return the cross-validated accuracy of TF-IDF and logistic regression."""
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=30, max_iter=2000))
    return round(float(np.mean(cross_val_score(model, texts, labels, cv=folds, groups=groups))), 3)


def pilot(arguments: list[str], count: int) -> dict:
    """Return the measurements of one model."""
    config = load_config(arguments)
    rows = read_rows(config.data)
    llm = open_llm(config)
    with llm.store:
        pipeline = open_pipeline(config, rows, llm)
        traces = pipeline.clean(rows.train[:count])
        styled = replace(
            pipeline,
            config=replace(config, alignment=replace(config.alignment, style=True, summary=False, reasoning=False)),
        ).clean(rows.train[:count])
    targets = [trace.record.target for trace in traces]
    sources = [join_parts(trace.described) for trace in traces]
    summaries = [trace.aligned.answers["summary"] for trace in traces]
    drafts = _first_draws(llm, config, traces, pipeline.exemplar)
    folds = RepeatedKFold(n_splits=5, n_repeats=10, random_state=0)
    modalities = [
        (name, text, after, index)
        for index, trace in enumerate(styled)
        for (name, text), (_, after) in zip(trace.described, trace.aligned.styled, strict=True)
    ]
    names, before, after, groups = zip(*modalities, strict=True)
    usage = llm.usage
    return {
        "llm": config.llm.model,
        "rows": len(traces),
        "facts_kept": {
            "first_draw": round(float(np.mean([facts_kept(*pair) for pair in zip(sources, drafts, strict=True)])), 3),
            "used": round(
                float(
                    np.mean(
                        [facts_kept(source, answer.text) for source, answer in zip(sources, summaries, strict=True)]
                    )
                ),
                3,
            ),
        },
        "fallbacks": {stage: round(usage.fallbacks[stage] / usage.texts[stage], 3) for stage in sorted(usage.texts)},
        "flags": dict(usage.flags),
        "loops": round(usage.flags["loop"] / usage.texts.total(), 3),
        "class_probe": {
            "descriptions": probe(sources, targets, folds),
            "summary": probe([answer.text for answer in summaries], targets, folds),
        },
        "modality_probe": {
            "before": probe(before, names, GroupKFold(5), groups),
            "after": probe(after, names, GroupKFold(5), groups),
        },
        "llm_accuracy": round(float(np.mean([trace.aligned.prediction == trace.record.target for trace in traces])), 3),
        "seconds_per_call": round(usage.seconds / max(len(usage.used_keys), 1), 2),
    }


def _first_draws(llm, config, traces, exemplar) -> list[str]:
    """Return the first draw of each summary, before the quality gate."""
    task = Task(config.data.question, ())
    questions = [summary_task(trace.described, config.alignment, task, exemplar) for trace in traces]
    return [llm.store.get(question.request.key(llm.name)).completion for question in questions]


def main(arguments: list[str]) -> None:
    """Parse rows= and llm=a,b; the other arguments are configuration settings."""
    options = {"rows": "50", "llm": "qwen2.5-coder-1.5b,qwen2.5-coder-0.5b"}
    settings = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in options:
            options[key] = value
        else:
            settings.append(argument)
    for name in options["llm"].split(","):
        print(json.dumps(pilot([*settings, f"llm={name}"], int(options["rows"])), indent=2), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
