"""What a project says of its annotations, where two sources know different ones."""

from backend.label_studio.records import SummaryRow


def test_of_two_summaries_the_larger_counts_hold() -> None:
    own = SummaryRow({"mask": {"sky": 5, "sea": 1}}, {"mask|image|brushlabels": 6})
    imported = SummaryRow.of({"mask|image|brushlabels": {"sky": 2, "pine": 3, "": 4}})
    joined = own.joined(imported)
    assert joined.created_labels == {"mask": {"sky": 5, "sea": 1, "pine": 3}}
    assert joined.created_annotations == {"mask|image|brushlabels": 9}


def test_a_project_without_a_summary_has_the_counts_of_its_annotations() -> None:
    joined = SummaryRow().joined(SummaryRow.of({"a|image|brushlabels": {"sky": 2}}))
    assert (joined.created_labels, joined.created_annotations) == (
        {"a": {"sky": 2}},
        {"a|image|brushlabels": 2},
    )
