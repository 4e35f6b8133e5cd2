"""The report's first part: the primary endpoint, each method clean beside robust, and what the numbers say."""

import math

import pandas as pd

from ..evaluation.comparison import OURS, Comparison, Estimate
from ..evaluation.curves import corruption_error
from ..evaluation.primary_endpoint import FAMILY, Endpoint, endpoint, primary_condition
from .figures import clean_beside_robust
from .formatting import bounds_text, condition_text, difference_text, name_text, number_text, p_text
from .section import Section, estimate_columns

ESTIMATES = ("clean", "corrupted", "drop", "difference", "chance_adjusted_drop", "mce")
"""What the methods' table has of each."""


def primary(comparison: Comparison) -> Section:
    """The primary endpoint with its family, the methods' table and figure, and the sentences."""
    found, rows, condition = endpoint(comparison), robust_rows(comparison), primary_condition(comparison)
    tables = {
        "methods": pd.DataFrame(
            [
                {"method": row["method"], "validation": row["validation"]}
                | {key: value for name in ESTIMATES for key, value in estimate_columns(name, row[name]).items()}
                for row in rows
            ]
        )
    }
    if found:
        tables["primary"] = pd.DataFrame(
            [
                {
                    "ours": found.ours,
                    "rival": each.rival,
                    "rival_validation": each.validation,
                    **estimate_columns("points", each.points),
                    **estimate_columns("percent", each.percent),
                    "p": each.p,
                    "p_holm": each.adjusted,
                }
                for each in found.contrasts
            ]
        )
    figure = clean_beside_robust(comparison, condition) if condition else None
    values = {
        "endpoint": found,
        "family": FAMILY,
        "rows": rows,
        "condition": condition_text(comparison, condition) if condition else None,
        "judged": endpoint_sentence(comparison, found),
        "sentences": sentences(comparison),
    }
    return Section("primary.html.j2", values, tables, {"methods": figure} if figure else {})


def robust_rows(comparison: Comparison) -> list[dict]:
    """Each method clean beside robust, at the primary endpoint; nothing where there is none."""
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


def endpoint_sentence(comparison: Comparison, found: Endpoint | None) -> str:
    """The primary endpoint in a sentence, won, lost or not tested."""
    condition = primary_condition(comparison)
    if condition is None:
        return "The primary endpoint is not tested: there is no noise among the conditions."
    where = f"Primary endpoint, {condition_text(comparison, condition)}: "
    if found is None:
        missing = f"no run of the method {OURS}" if comparison.named(OURS) is None else f"no rival of {OURS}"
        return f"{where}not tested, for there is {missing}."
    if found.best is None:
        return f"{where}not tested, for no rival has a validation score to be chosen by."
    best = found.best
    drops = [comparison.drop(method, [condition]) for method in (found.ours, best.rival)]
    ours, rival = (f"{number_text(drop.value)} {bounds_text(drop)}".strip() for drop in drops)
    percent = "" if math.isnan(best.percent.value) else f" or {difference_text(best.percent, 1)} %"
    if math.isnan(best.p):
        verdict = "its interval is not known"
    elif best.adjusted >= 0.05:
        verdict = "no difference is shown"
    else:
        verdict = f"{found.ours} loses {'less' if best.points.value < 0 else 'more'}"
    return (
        f"{where}{found.ours} has a drop ratio of {ours}; {best.rival}, the best of {len(found.contrasts)} rivals "
        f"on validation (val/score {number_text(best.validation)}), has {rival}. The difference is "
        f"{difference_text(best.points, 1)} points{percent}; p {p_text(best.p)}, after Holm's correction p "
        f"{p_text(best.adjusted)}: {verdict}."
    )


def sentences(comparison: Comparison) -> list[str]:
    """What else the numbers say of each method, all exploratory: beside the reference, and its weakest spots."""
    found = []
    for method in comparison.methods:
        said = [] if method == comparison.reference else [_against_reference(comparison, method)]
        weakest = [
            f"{text} (drop ratio {number_text(drop.value)} {bounds_text(drop)})"
            for text, drop in _weakest(comparison, method)
        ]
        said += [f"{method} loses most {' and '.join(weakest)}."] if weakest else []
        found += [" ".join(said)] if said else []
    return found


def _against_reference(comparison: Comparison, method: str) -> str:
    """Drop ratios beside the reference's, at the primary endpoint and counted over conditions, and the clean score."""
    reference, condition = comparison.reference, primary_condition(comparison)
    clean = comparison.difference(method, ["clean"])
    drops = [comparison.drop_difference(method, [name]) for name in comparison.corrupted]
    sides = [[drop for drop in drops if sign * drop.value > 0] for sign in (-1, 1)]
    lower, higher = (f"{len(side)} ({sum(drop.excludes_zero for drop in side)} sure)" for side in sides)
    judged = ""
    if condition:
        difference = comparison.drop_difference(method, [condition])
        if math.isnan(difference.low):
            verdict = "the interval is not known"
        elif not difference.excludes_zero:
            verdict = "no difference is shown"
        else:
            verdict = f"it loses {'less' if difference.high < 0 else 'more'}"
        judged = f"{difference_text(difference)} under {condition_text(comparison, condition)}: {verdict}; "
    return (
        f"{method} against {reference}, drop ratio: {judged}lower in {lower} of {len(drops)} corrupted conditions "
        f"and higher in {higher}; clean {name_text(comparison.metric)} {difference_text(clean)}."
    )


def _weakest(comparison: Comparison, method: str) -> list[tuple[str, Estimate]]:
    """The single modality whose noise of the middle level costs most, and the one whose absence does."""
    modality = comparison.conditions["modality"]
    noisy = [name for name in comparison.select("noisy", level=comparison.middle) if modality[name] != "all"]
    missing = [name for name in comparison.select("missing") if "+" not in modality[name]]
    worst = []
    for word, names in (("under ", noisy), ("", missing)):
        drops = {word + condition_text(comparison, name): comparison.drop(method, [name]) for name in names}
        drops = {text: drop for text, drop in drops.items() if not math.isnan(drop.value)}
        if drops:
            worst.append(max(drops.items(), key=lambda item: item[1].value))
    return worst
