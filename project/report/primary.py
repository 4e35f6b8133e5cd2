"""The first section: the primary endpoint, clean and corrupted scores of each method, and a summary."""

import math

import pandas as pd

from ..evaluation.comparison import OURS, Comparison, Estimate
from ..evaluation.curves import corruption_error
from ..evaluation.primary_endpoint import FAMILY, Endpoint, endpoint, primary_condition
from .figures import clean_and_corrupted
from .formatting import bounds_text, condition_text, difference_text, name_text, number_text, p_text
from .section import Section, estimate_columns

ESTIMATES = ("clean", "corrupted", "drop", "difference", "chance_adjusted_drop", "mce")
"""Estimates in the table of methods."""


def primary(comparison: Comparison) -> Section:
    """Return the primary endpoint and its family of comparisons, the table and figure of methods, and the summary."""
    result, rows, condition = endpoint(comparison), method_rows(comparison), primary_condition(comparison)
    tables = {
        "methods": pd.DataFrame(
            [
                {"method": row["method"], "validation": row["validation"]}
                | {key: value for name in ESTIMATES for key, value in estimate_columns(name, row[name]).items()}
                for row in rows
            ]
        )
    }
    if result:
        tables["primary"] = pd.DataFrame(
            [
                {
                    "ours": result.ours,
                    "rival": contrast.rival,
                    "rival_validation": contrast.validation,
                    **estimate_columns("points", contrast.points),
                    **estimate_columns("percent", contrast.percent),
                    "p": contrast.p,
                    "p_holm": contrast.adjusted,
                }
                for contrast in result.contrasts
            ]
        )
    figure = clean_and_corrupted(comparison, condition) if condition else None
    values = {
        "endpoint": result,
        "family": FAMILY,
        "rows": rows,
        "condition": condition_text(comparison, condition) if condition else None,
        "endpoint_sentence": endpoint_sentence(comparison, result),
        "sentences": sentences(comparison),
    }
    return Section("primary.html.j2", values, tables, {"methods": figure} if figure else {})


def method_rows(comparison: Comparison) -> list[dict]:
    """Return the clean and corrupted scores of each method at the primary endpoint; empty without its condition."""
    condition = primary_condition(comparison)
    if condition is None:
        return []
    reference = comparison.named("plain")
    return [
        {
            "method": method,
            "validation": comparison.validation(method),
            "clean": comparison.value(method, ["clean"]),
            "corrupted": comparison.value(method, [condition]),
            "drop": comparison.drop(method, [condition]),
            "difference": None if method == comparison.reference else comparison.drop_difference(method, [condition]),
            "chance_adjusted_drop": comparison.chance_adjusted(method, condition),
            "mce": corruption_error(comparison, method, reference) if reference else None,
        }
        for method in comparison.methods
    ]


def endpoint_sentence(comparison: Comparison, result: Endpoint | None) -> str:
    """Return the result of the primary endpoint in words."""
    condition = primary_condition(comparison)
    if condition is None:
        return "The primary endpoint is not tested: no condition has noise."
    intro = f"Primary endpoint, {condition_text(comparison, condition)}: "
    if result is None:
        missing = f"no run of the method {OURS}" if comparison.named(OURS) is None else f"no rival of {OURS}"
        return f"{intro}not tested, because the report has {missing}."
    if result.best is None:
        return f"{intro}not tested, because no rival has a validation score."
    best = result.best
    drops = [comparison.drop(method, [condition]) for method in (result.ours, best.rival)]
    ours, rival = (f"{number_text(drop.value)} {bounds_text(drop)}".strip() for drop in drops)
    count = len(result.contrasts)
    rank = f"the best of {count} rivals on validation" if count > 1 else "the only rival"
    percent = "" if math.isnan(best.percent.value) else f" or {difference_text(best.percent, 1)} %"
    if math.isnan(best.p):
        verdict = "the interval is unknown"
    elif best.adjusted >= 0.05:
        verdict = "no clear difference"
    else:
        verdict = f"{result.ours} loses {'less' if best.points.value < 0 else 'more'}"
    return (
        f"{intro}{result.ours} has a drop ratio of {ours}; {best.rival}, {rank} "
        f"(val/score {number_text(best.validation)}), has {rival}. The difference is "
        f"{difference_text(best.points, 1)} points{percent}; p {p_text(best.p)}, after Holm's correction p "
        f"{p_text(best.adjusted)}: {verdict}."
    )


def sentences(comparison: Comparison) -> list[str]:
    """Return a summary of each method, all exploratory: its difference from the reference, and its largest drops."""
    summaries = []
    for method in comparison.methods:
        parts = [] if method == comparison.reference else [_against_reference(comparison, method)]
        largest = [
            f"{text} (drop ratio {f'{number_text(drop.value)} {bounds_text(drop)}'.strip()})"
            for text, drop in _largest_drops(comparison, method)
        ]
        parts += [f"{method} loses most {' and '.join(largest)}."] if largest else []
        summaries += [" ".join(parts)] if parts else []
    return summaries


def _against_reference(comparison: Comparison, method: str) -> str:
    """Compare drop ratios at the primary endpoint and over all conditions, and the clean score, with the reference."""
    reference, condition = comparison.reference, primary_condition(comparison)
    clean = comparison.difference(method, ["clean"])
    drops = [comparison.drop_difference(method, [name]) for name in comparison.corrupted]
    sides = [[drop for drop in drops if sign * drop.value > 0] for sign in (-1, 1)]
    lower, higher = (f"{len(side)} ({sum(drop.excludes_zero for drop in side)} clearly)" for side in sides)
    at_endpoint = ""
    if condition:
        difference = comparison.drop_difference(method, [condition])
        if math.isnan(difference.low):
            verdict = "the interval is unknown"
        elif not difference.excludes_zero:
            verdict = "no clear difference"
        else:
            verdict = f"it loses {'less' if difference.high < 0 else 'more'}"
        at_endpoint = f"{difference_text(difference)} under {condition_text(comparison, condition)}: {verdict}; "
    return (
        f"{method} against {reference}, drop ratio: {at_endpoint}lower in {lower} of {len(drops)} corrupted conditions "
        f"and higher in {higher}; clean {name_text(comparison.metric)} {difference_text(clean)}."
    )


def _largest_drops(comparison: Comparison, method: str) -> list[tuple[str, Estimate]]:
    """Return the largest drops above 0 under noise of the middle level on one modality, and without one modality."""
    modality = comparison.conditions["modality"]
    noisy = [name for name in comparison.select("noisy", level=comparison.middle) if modality[name] != "all"]
    missing = [name for name in comparison.select("missing") if "+" not in modality[name]]
    largest = []
    for prefix, names in (("under ", noisy), ("", missing)):
        drops = {prefix + condition_text(comparison, name): comparison.drop(method, [name]) for name in names}
        drops = {text: drop for text, drop in drops.items() if drop.value > 0}
        if drops:
            largest.append(max(drops.items(), key=lambda item: item[1].value))
    return largest
