"""Tests that are not run on the stand-in for a GPU, by part of their names, and why."""

import os

_OTHER = "it is about the other stand-in, whose work is on the processor"
_EMPTY = "it records no work at all, of which torch warns"
_COUNTS = "it counts calls of Python, which a graph that is replayed does not make"

_STOPS = "a graph is computed to its end"

_LEFT_OUT = {
    "test_draft_model.py::test_a_draft_that_is_dropped_is_freed": "it is about rows without a seat",
    "test_draft_model.py::test_a_level_of_the_tree_is_one_pass": _COUNTS,
    "test_draft_model.py::test_a_long_prompt_is_computed_in_pieces": _COUNTS,
    "test_draft_model.py::test_a_prompt_alone": _COUNTS,
    "test_draft_model.py::test_no_row_is_computed_twice": _COUNTS,
    "test_draft_model.py::test_tokens_that_come_before_the_first_question": _COUNTS,
    "test_moves.py::test_without_an_order_of_sums": "it has a device without its own kernels",
    "test_one_pass.py::test_a_block_is_computed_once_for_each_root": _COUNTS,
    "test_recorded.py::test_work_with_other_numbers_is_no_replay": _OTHER,
    "test_recorded.py::test_work_that_waits_is_not_recorded": _OTHER,
    "test_recorded.py::test_work_on_another_tensor_is_no_replay": _OTHER,
    "test_recorded.py::test_accepted_rows_find_their_places": _COUNTS,
    "test_recorded.py::test_rows_get_into_slots_in_another_way": "the slow device is the processor",
    "test_recorded_seats.py::test_no_free_seat_is_beside_one_that_is_made_or_grown": _EMPTY,
    "test_recorded_seats.py::test_few_seats_are_kept_and_recordings_go_with_the_others": _EMPTY,
    "test_shared_rows.py::test_a_small_model_computes_only_what_is_new": _COUNTS,
    "test_shared_rows.py::test_all_of_the_prompt_may_be_there": _COUNTS,
    "test_shared_rows.py::test_without_rows_a_small_model_computes_all": _COUNTS,
    "test_stage.py::test_a_pass_says_which_layer_it_is_at": _COUNTS,
    "test_stage.py::test_a_quantised_model_is_one_model_however_it_is_cut[float32-int8]": "int8 is "
    "widened on a device, where it saves no memory",
    "test_stage.py::test_a_stop_in_the_middle_leaves_the_stage_usable": _STOPS,
}

_LEFT_OUT_IF_LAZY = {
    "test_recorded_seats.py::test_no_row_of_a_text_sees_what_filled_up": "it writes into a seat "
    "from a stream that nobody waits for",
}


def why_left_out(test: str) -> str | None:
    """None: it is run."""
    lazy = os.environ.get("STAND_IN_LAZY", "0") != "0"
    table = _LEFT_OUT | (_LEFT_OUT_IF_LAZY if lazy else {})
    return next((reason for part, reason in table.items() if part in test), None)
