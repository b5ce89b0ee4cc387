"""The mutants: what each breaks, by which change, and which tests are to catch it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ORDER, LOOKS, CHAIN = "tests/test_wire_order.py", "tests/test_looked_up.py", "tests/test_join_chain.py"
TURNS = "tests/test_each_concurrency.py"
CHANGES, MENDED = "tests/test_changes.py", "tests/test_mended.py"
PEOPLE, EVENTS = "tests/test_people.py", "tests/test_events.py"
WHEN, AGAIN = "tests/test_when.py", "tests/test_again.py"
DELIVERY, CALLS = "tests/test_worker_delivery.py", "tests/test_recorded_calls.py"
STEPS, ENGINE, RUN = "actors/baton_actors/steps", "bus/baton_bus/engine", "schemas/baton_schemas/run"
STORE, JETSTREAM = "bus/baton_bus/store", "bus/baton_bus/jetstream"
ACK_ALL = "            for delivery, _ in waiting:\n                await delivery.ack()\n"
SERVICES = "actors/baton_actors/services"
ASKING, ASKING_MORE, PLACES = "tests/test_asking.py", "tests/test_asking_more.py", "tests/test_asking_places.py"
FAULTS, ONCE = "tests/test_asking_faults.py", "tests/test_parking_once.py"


class Broken(Exception):
    """The table is wrong: a mutant, or its test, is not what it says."""


class Mutant(NamedTuple):
    """One change."""

    name: str
    room: str
    """The folder in whose files it is: code moves within a room."""
    text: str
    """What stands there: exactly once in the room."""
    put: str
    """What stands there instead."""
    caught_by: tuple[str, ...]
    """The tests of which at least one has to fail."""

    def file(self, root: Path) -> Path:
        """Return the file that it changes. Raises `Broken` when there is not one such text in the room."""
        files = sorted((root / self.room).rglob("*.py"))
        found = {file: count for file in files if (count := file.read_text("utf-8").count(self.text))}
        if sum(found.values()) != 1:
            places = ", ".join(f"{count} in {file.name}" for file, count in found.items()) or "nowhere"
            raise Broken(f"{self.name}: {self.text!r} is to be once in {self.room}, and is {places}: mend the table")
        return next(iter(found))


MUTANTS = (
    # ---- the order of effects --------------------------------------------------------------------
    Mutant(
        "ack-before-record",
        STEPS,
        "        # 4. Record:",
        "        await job.delivery.ack()\n        # 4. Record:",
        (f"{ORDER}::test_reply_is_stored_before_its_handoff_is_acked",),
    ),
    Mutant(
        "ack-before-derive",
        STEPS,
        "        # 5. Derive",
        "        await job.delivery.ack()\n        # 5. Derive",
        (f"{ORDER}::test_outcome_is_stored_before_what_follows_and_that_before_the_ack",),
    ),
    Mutant(
        "derive-before-record",
        ENGINE,
        "            return await self.asking.record(self.bus.subjects.of(*create), create.message)\n"
        "        return await self.writing.record(create)",
        "            return await self.asking.record(self.bus.subjects.of(*create), create.message)\n"
        "        await self.derive(plan, create.message)\n        return await self.writing.record(create)",
        (f"{ORDER}::test_outcome_is_stored_before_what_follows_and_that_before_the_ack",),
    ),
    Mutant(
        "replies-acked-before-the-chain-has-them",
        STEPS,
        "            # 1. Record who has arrived",
        f"{ACK_ALL}            # 1. Record who has arrived",
        (f"{ORDER}::test_replies_are_acked_once_the_chain_has_them_and_the_last_once_the_join_is_closed",),
    ),
    Mutant(
        "replies-acked-before-the-join-is-closed",
        STEPS,
        "            # 2. Close the join",
        f"{ACK_ALL}            # 2. Close the join",
        (f"{ORDER}::test_replies_are_acked_once_the_chain_has_them_and_the_last_once_the_join_is_closed",),
    ),
    Mutant(
        "parked-before-the-timer-is-set",
        STEPS,
        "            # 1. The timer holds it.",
        "            await delivery.ack()\n            # 1. The timer holds it.",
        (f"{ORDER}::test_step_that_waits_for_long_is_let_go_once_its_timer_is_set",),
    ),
    Mutant(
        "rejected-before-a-note-says-why",
        STEPS,
        "            # 1. Say why,",
        "            await delivery.term()\n            # 1. Say why,",
        (f"{ORDER}::test_rejected_message_is_taken_away_once_a_note_says_why",),
    ),
    Mutant(
        "answer-used-before-it-is-recorded",
        STEPS,
        "        stored = await self._journal.write(call)\n",
        "        write = self._journal.write(call)\n"
        "        asyncio.get_running_loop().call_later(0.1, lambda: asyncio.ensure_future(write))\n"
        "        stored = call\n",
        (f"{ORDER}::test_answer_of_a_model_is_stored_before_it_is_used",),
    ),
    Mutant(
        "task-acked-before-its-run-is-stored",
        SERVICES,
        "        try:\n            check_json(delivery.data, ",
        "        await delivery.ack()\n        try:\n            check_json(delivery.data, ",
        (f"{ORDER}::test_task_is_acked_once_its_run_is_in_the_log",),
    ),
    Mutant(
        "due-message-acked-before-it-is-written",
        SERVICES,
        "            await self._write(delivery)\n",
        "            await delivery.ack()\n            await self._write(delivery)\n",
        (f"{ORDER}::test_what_is_due_is_acked_once_it_is_in_the_log",),
    ),
    Mutant(
        "blob-head-before-its-chunks",
        STORE,
        "        for start in range(1, len(chunks), _IN_FLIGHT):",
        "        early = msgspec.json.encode(_Head(size_bytes=len(data), chunks=len(chunks)))\n"
        "        await self._publisher.create(self._subjects.blob(blob.sha256, 0), early)\n"
        "        for start in range(1, len(chunks), _IN_FLIGHT):",
        (f"{ORDER}::test_blob_is_said_to_be_whole_once_all_of_it_is_stored",),
    ),
    # ---- the fences ------------------------------------------------------------------------------
    Mutant(
        "no-fence",
        JETSTREAM,
        '_CREATE = header_of({EXPECTED: "0"})',
        '_CREATE = header_of({"Nothing-Expected": "0"})',
        (f"{DELIVERY}::test_worker_that_loses_the_race_goes_on_with_what_is_stored",),
    ),
    Mutant(
        "run-starts-once-per-first-step",
        ENGINE,
        "patience_s=patience_s, once_in=pattern)",
        "patience_s=patience_s)",
        ("tests/test_one_start.py::test_id_is_refused_after_the_first_step_was_renamed",),
    ),
    Mutant(
        "link-overwritten",
        STEPS,
        "            if await self._engine.bus.create(subject, encode(link)) is not None:",
        "            if await self._engine.bus.publisher.append(subject, encode(link)) is not None:",
        (f"{CHAIN}::test_link_that_another_process_wrote_is_read_and_never_overwritten",),
    ),
    Mutant(
        "run-id-of-a-task-from-its-delivery",
        SERVICES,
        "        run = run_of_task(delivery.seq)\n        try:\n",
        "        run = run_of_task(id(delivery) % 10**9)\n        try:\n",
        ("tests/test_steward.py::test_redelivered_task_starts_no_second_run",),
    ),
    # ---- joins -----------------------------------------------------------------------------------
    Mutant(
        "join-closes-at-half",
        RUN,
        "for source in self._sources) and not self.missing",
        "for source in self._sources) and self.missing * 2 <= sum(self.counts.values())",
        (f"{CHAIN}::test_join_waits_for_the_last_of_its_branches",),
    ),
    Mutant(
        "join-drops-errors-that-branches-carry",
        RUN,
        "        errors.update(dict.fromkeys(reply.state.errors))\n",
        "",
        (f"{CHAIN}::test_merger_is_told_of_errors_that_its_branches_carried",),
    ),
    Mutant(
        "join-closes-with-other-branches",
        RUN,
        "            source: self._text(source, self._came[source], ",
        "            source: self._text(source, set(range(len(self._came[source]))), ",
        (f"{CHAIN}::test_join_closes_with_the_branches_that_its_chain_names_and_no_others",),
    ),
    Mutant(
        "one-link-per-reply",
        STEPS,
        "                        await self._take(key, plan, good)\n",
        "                        for one in good:\n                            await self._take(key, plan, [one])\n",
        (f"{CHAIN}::test_replies_that_come_together_are_named_together",),
    ),
    Mutant(
        "shared-state-in-each-branch",
        ENGINE,
        "        if not shared:\n",
        "        if creates:\n",
        ("tests/test_shared_state.py::test_branches_share_what_is_small_in_each_and_much_in_all",),
    ),
    # ---- one branch after the other --------------------------------------------------------------
    Mutant(
        "no-branch-follows-one-that-is-found-to-have-ended",
        STEPS,
        "    await engine.derive(work.plan, record, work.handoff)\n",
        "    await engine.derive(work.plan, record)\n",
        (f"{TURNS}::test_workers_that_die_between_any_two_writes_are_taken_over",),
    ),
    Mutant(
        "all-branches-at-once",
        RUN,
        "items[: plan.step(name).concurrency or len(items)]",
        "items[:]",
        (f"{TURNS}::test_all_branches_are_done_and_so_many_at_once",),
    ),
    Mutant(
        "branches-begin-when-their-join-has-closed",
        ENGINE,
        " or await self._are_closed(plan, ended):",
        ":",
        (f"{TURNS}::test_no_branch_begins_once_its_join_has_closed",),
    ),
    Mutant(
        "list-read-for-each-branch",
        ENGINE,
        "                if items:\n",
        "                if not items:\n",
        (f"{TURNS}::test_list_is_read_once_by_a_worker_however_many_branches_follow",),
    ),
    Mutant(
        "run-that-earlier-releases-would-refuse",
        RUN,
        "v=max(first.v, plan.version), cause=cause",
        "cause=cause",
        ("tests/test_each_last.py::test_worker_of_an_earlier_release_gives_such_a_run_back_and_one_of_this_does_it",),
    ),
    # ---- what is looked up, and what is believed -------------------------------------------------
    Mutant(
        "every-handoff-is-fresh",
        STORE,
        "        return delivery.delivered == 1 and ",
        "        return True or ",
        (f"{LOOKS}::test_steps_are_done_by_nobody_again_when_their_consumer_is_made_anew",),
    ),
    Mutant(
        "results-not-looked-up-on-redelivery",
        STEPS,
        "    if ended is not None:\n        await engine.nesting.follow(ended)\n        return None\n"
        "    if record is None:",
        "    if record is None:",
        (f"{LOOKS}::test_handler_of_a_run_that_ended_meanwhile_does_not_start_on_redelivery",),
    ),
    Mutant(
        "word-of-an-end-believed-for-a-step-in-hand",
        STEPS,
        '        if job.cancelled == "run ended" and await self._engine.ended_and_followed(job.flow, job.run):\n',
        '        if job.cancelled == "run ended":\n',
        (f"{LOOKS}::test_word_that_the_log_does_not_confirm_loses_no_step_in_hand",),
    ),
    Mutant(
        "word-of-an-end-believed-for-a-step-to-come",
        STEPS,
        "            if await self._has_ended(work):\n                return None\n",
        "            return None\n",
        ("tests/test_forged_words.py::test_forged_word_before_a_run_begins_loses_nothing",),
    ),
    Mutant(
        "newer-message-rejected",
        "schemas/baton_schemas/wire",
        "        raise NewerMessage(version, VERSION, subject) from error",
        "        raise BadMessage(str(version), subject) from error",
        ("tests/test_newer_messages.py::test_handoff_of_a_later_version_stays_and_others_go_on",),
    ),
    Mutant(
        "rejection-on-a-lagging-servers-word",
        STEPS,
        "self._bus.log.at_sure(message.start_seq)",
        "self._bus.log.at(message.start_seq)",
        ("tests/test_lagging_worker.py::test_handoff_of_a_run_that_is_not_found_is_rejected_on_the_leaders_word_only",),
    ),
    # ---- attempts and places ---------------------------------------------------------------------
    Mutant(
        "attempts-counted-from-deliveries",
        STEPS,
        "        job.attempt = tries.next\n",
        "        job.attempt = job.delivery.delivered\n",
        (f"{DELIVERY}::test_deliveries_that_no_handler_began_are_no_attempts",),
    ),
    Mutant(
        "retry-notes-not-counted",
        STEPS,
        "                failed += 1\n",
        "",
        ("tests/test_worker_failures.py::test_step_fails_after_its_last_attempt",),
    ),
    Mutant(
        "suspects-not-noted-as-begun",
        STEPS,
        "await journal.write(Begun(attempt=job.attempt, number=job.begun))",
        "pass",
        ("tests/test_suspects.py::test_step_that_kills_its_worker_fails_alone_after_its_attempts",),
    ),
    Mutant(
        "max-in-flight-not-passed-on",
        "actors/baton_actors/processes",
        "max_ack_pending=self._agent.max_in_flight,",
        "max_ack_pending=1000,",
        (f"{DELIVERY}::test_no_more_steps_than_max_in_flight_are_in_the_hands_of_all_processes_together",),
    ),
    Mutant(
        "leases-kept-by-nobody-beside-the-loop",
        JETSTREAM,
        "        leases = self._nc.leases if self._lease_s else None",
        "        leases = None",
        ("tests/test_consumer.py::test_lease_outlives_a_loop_that_is_blocked_for_several",),
    ),
    # ---- recorded calls --------------------------------------------------------------------------
    Mutant(
        "recorded-calls-not-recalled",
        STEPS,
        "        if call is None:\n            return None\n",
        "        if call is None or call:\n            return None\n",
        (f"{CALLS}::test_worker_stopped_with_the_answer_recorded_costs_no_second_call",),
    ),
    Mutant(
        "recalled-for-another-model",
        "schemas/baton_schemas/show",
        "texts = (valid_text(self.model), ",
        'texts = ("", ',
        (f"{CALLS}::test_recorded_answer_is_used_for_the_same_question_of_the_same_model_only",),
    ),
    Mutant(
        "recalled-for-another-max-tokens",
        "schemas/baton_schemas/show",
        "((*texts, self.max_tokens, rehearses, *more))",
        "((*texts, 0, rehearses, *more))",
        (f"{CALLS}::test_recorded_answer_is_used_for_the_same_question_of_the_same_model_only",),
    ),
    # ---- going on under a changed flow ------------------------------------------------------------
    Mutant(
        "kept-after-what-is-done-again",
        RUN,
        'f"after {before[0]}" if before else ""',
        '""',
        (f"{CHANGES}::test_step_is_done_again_for_what_decides_its_outcome_and_for_nothing_else",),
    ),
    Mutant(
        "kept-with-another-prompt",
        RUN,
        '    *("model", "system", "prompt", "handler"),',
        '    *("model", "system", "handler"),',
        (f"{CHANGES}::test_step_is_done_again_for_what_decides_its_outcome_and_for_nothing_else",),
    ),
    Mutant(
        "kept-and-not-looked-up",
        RUN,
        "found.append(Create(actor, replace(message, copied=True)))",
        "found.append(Create(actor, replace(message, copied=False)))",
        (f"{CHANGES}::test_output_of_the_last_step_is_kept_when_another_comes_after_it",),
    ),
    Mutant(
        "another-flow-carries-what-the-old-one-did",
        RUN,
        "        return with_outcome(self._sees[place], self._plan.name_of(place), self._past.outcomes[place])\n",
        "        return self._sees[place]\n",
        (f"{MENDED}::test_step_that_now_reads_what_was_not_carried_to_it_gets_it",),
    ),
    # ---- asking ----------------------------------------------------------------------------------
    Mutant(
        "parked-over-an-answer",
        ENGINE,
        "        return await self._bus.create(place, encode(mark))\n",
        "        return await self._bus.publisher.append(place, encode(mark))\n",
        (f"{FAULTS}::test_parking_and_answering_at_the_same_time_lose_nothing",),
    ),
    Mutant(
        "parked-step-is-not-woken",
        ENGINE,
        "                    woken = answers_parked(answer, parked, entry.seq)\n",
        "                    woken = answer\n",
        (f"{ASKING}::test_step_that_waits_long_is_parked_and_comes_back",),
    ),
    Mutant(
        "each-answer-to-a-parking-wakes-by-itself",
        RUN,
        "wakes=_wakes(parked, parked.first or parked_seq)",
        "wakes=_wakes(parked, parked_seq)",
        (f"{ONCE}::test_second_answer_begins_nothing_beside_the_step_that_the_first_one_woke",),
    ),
    Mutant(
        "what-comes-while-a-step-is-parked-is-heard",
        STEPS,
        "            child.hold_back()\n",
        "            child.let_through()\n",
        (f"{ONCE}::test_answer_that_comes_while_a_step_is_being_parked_goes_to_one_worker",),
    ),
    Mutant(
        "mark-of-an-earlier-parking-is-kept",
        ENGINE,
        "            return await self._bus.replace_last(place, encode(mark), seen[place])\n",
        "            return seen[place]\n",
        (
            "tests/test_parking_property.py::test_no_answer_is_lost_whatever_breaks",
            f"{ONCE}::test_step_that_is_parked_again_upon_the_other_is_brought_back_by_it",
        ),
    ),
    Mutant(
        "waking-is-left-to-whoever-answered-first",
        RUN,
        "            woken = woken_by(record)\n",
        "            woken = woken_by(record) if not record.wakes else None\n",
        (
            f"{FAULTS}::test_worker_that_dies_after_the_answer_and_before_the_wake_is_finished_by_another",
            f"{ASKING}::test_parked_step_outlives_its_worker",
        ),
    ),
    Mutant(
        "acked-before-it-is-parked",
        STEPS,
        "        put = await self._engine.asking.park(",
        "        await self._job.delivery.ack()\n        put = await self._engine.asking.park(",
        (f"{ORDER}::test_step_that_waits_for_an_answer_is_let_go_once_it_is_parked_there",),
    ),
    Mutant(
        "answers-are-not-read-when-a-step-is-done-again",
        STEPS,
        "        if self._again:\n            await self._remember()\n",
        "",
        (f"{ASKING_MORE}::test_what_is_not_asked_again_is_noted",),
    ),
    Mutant(
        "child-is-named-without-its-number",
        RUN,
        "_encoder.encode(asked).decode(), str(number))).token",
        "_encoder.encode(asked).decode())).token",
        (f"{ASKING}::test_same_question_twice_is_two_questions",),
    ),
    Mutant(
        "child-is-named-without-who-asks",
        RUN,
        "key=short_hash(asker, kind, ",
        "key=short_hash(kind, ",
        (f"{PLACES}::test_two_steps_that_ask_the_same_have_each_a_child_of_their_own",),
    ),
    Mutant(
        "place-is-not-taken-back",
        STEPS,
        "            self._back = self._job.delivery.take_back()\n",
        "            self._back = None\n",
        (f"{PLACES}::test_step_goes_on_only_once_it_has_a_place_again",),
    ),
    Mutant(
        "recorded-and-made-again",
        STEPS,
        "            if isinstance(note.fact, Recorded) and (note.fact.name, note.fact.number) == (name, number):\n",
        "            if isinstance(note.fact, Recorded) and (note.fact.name, note.fact.number) == (name, 0):\n",
        (f"{PLACES}::test_what_is_recorded_is_made_once_however_often_the_step_is_done",),
    ),
    Mutant(
        "time-runs-while-it-waits",
        STEPS,
        "                self._clock.pause()\n",
        "                pass\n",
        (f"{ASKING_MORE}::test_time_out_stands_still_while_a_handler_waits",),
    ),
    # ---- what is said from outside ----------------------------------------------------------------
    Mutant(
        "event-is-lost-when-the-time-of-who-waited-was-up",
        RUN,
        "unheard = sorted([*unheard, got.pop(key)])",
        "got.pop(key)",
        (f"{EVENTS}::test_words_go_to_those_who_wait_in_the_order_of_the_log",),
    ),
    Mutant(
        "word-that-comes-again-wakes-nobody",
        ENGINE,
        "            await self._asking.answer(ours[0].cause.actor, ours[0].answer)\n",
        "",
        (f"{PEOPLE}::test_clerk_that_dies_at_any_operation_leaves_nothing_undone",),
    ),
    Mutant(
        "nobody-looks-for-events-that-came-before",
        STEPS,
        'if kind == "event" and child.is_open:',
        "if False:",
        (f"{EVENTS}::test_events_that_come_before_they_are_waited_for_are_kept",),
    ),
    Mutant(
        "parked-upon-one-alone",
        STEPS,
        "return [*reversed(late), *reversed(soon[:_UPON_MAX])]",
        "return [*soon, *late][:1]",
        (f"{PEOPLE}::test_whoever_answers_first_brings_the_step_back",),
    ),
    # ---- conditions and loops --------------------------------------------------------------------
    Mutant(
        "left-out-counts-as-done",
        RUN,
        "if source not in self._left_out}\n",
        "}\n",
        (f"{WHEN}::test_min_done_does_not_count_what_was_left_out",),
    ),
    Mutant(
        "left-out-step-hands-on-as-if-it-were-done",
        RUN,
        "outcome=record.outcome if is_left_out(record.outcome) else None)",
        "outcome=None)",
        (f"{WHEN}::test_all_ways_behind_a_step_that_is_left_out_are_left_out",),
    ),
    Mutant(
        "round-sees-this-rounds-values-of-the-one-before",
        RUN,
        "{name: name + LAST if name in loop else name for name in kept}",
        "{name: name for name in kept}",
        (f"{AGAIN}::test_step_that_was_skipped_in_a_round_has_no_output_of_the_round_before",),
    ),
    Mutant(
        "loop-has-one-round-more",
        RUN,
        "    if round_of(record.step) < step.again.max_rounds:\n",
        "    if round_of(record.step) <= step.again.max_rounds:\n",
        (f"{AGAIN}::test_run_goes_on_after_the_last_round_with_what_there_is",),
    ),
    Mutant(
        "record-that-failed-a-loop-is-copied",
        RUN,
        "        if isinstance(message, OutcomeRecord) and message.step in vain:\n",
        "        if False:\n",
        (f"{AGAIN}::test_run_fails_after_the_last_round_where_that_is_set_and_a_retry_asks_once_more",),
    ),
    # ---- files -----------------------------------------------------------------------------------
    Mutant(
        "file-is-named-before-it-is-stored",
        "actors/baton_actors/agents",
        "            await journal.keep(made)\n",
        "            pass\n",
        ("tests/test_files.py::test_steps_put_out_files_that_branches_and_clients_read",),
    ),
    Mutant(
        "file-that-is-not-there-is-believed",
        ENGINE,
        "if not self._is_held(given.sha256) and not await self._bus.blobs.hold(blob):",
        "if False:",
        ("tests/test_documents.py::test_file_that_is_not_stored_is_said_before_the_run_starts",),
    ),
    Mutant(
        "files-of-large-lists-are-forgotten",
        ENGINE,
        "return replace(blob, files=True) if may_name_files(data) else blob",
        "return blob",
        ("tests/test_files.py::test_files_in_a_list_that_is_beside_the_log_itself_are_kept_with_it",),
    ),
)
