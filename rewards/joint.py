"""The joint protocol of OwlCap's released code: one prompt, one JSON reply with both unit lists.

    {"Pred_units": [{"units": "...", "response": "Yes", "tag": "motion"}, ...], "Gt_units": [...]}

Only the exact string "Yes" agrees. `tag` is ours; where it is missing it is guessed. The prompt's text is ours.
"""

from __future__ import annotations

from dataclasses import replace

from owlcap.types import Judgement, Label, Unit
from rewards.chat import ChatModel, InvalidReply, Question
from rewards.replies import read_list, read_object, read_text
from rewards.tags import guess_tag
from rewards.templates import load_template, quoted


class JointJudge:
    """Asks `model` once for a pair of captions.

    Args:
        prompts: the user's template folder, or None.
    """

    def __init__(self, model: ChatModel, prompts: str | None = None) -> None:
        self._model = model
        self._template = load_template("joint", frozenset({"predicted", "reference"}), prompts)

    async def judge(self, predicted: str, reference: str) -> Judgement:
        """Both unit lists, labelled.

        Raises:
            JudgeError: from the model.
        """
        prompt = self._template.render(predicted=quoted(predicted), reference=quoted(reference))
        answer = await self._model.ask(Question("joint", prompt, self._template.hash, parse_reply))
        return replace(answer.value, judge=self._model.name, reply_ids=(answer.reply_id,))


def parse_reply(text: str) -> Judgement:
    """Read a reply.

    "Yes" is supported. Anything else is contradicted for a predicted unit (the question was whether it conflicts)
    and not_mentioned for a reference unit (the question was whether it is covered). No predicted units is an
    answer: the caption said nothing readable.

    Raises:
        InvalidReply: no JSON object, a list or field that is missing or ill-typed, or no reference units.
    """
    reply = read_object(text)
    predicted = _units(reply, "Pred_units", otherwise="contradicted")
    reference = _units(reply, "Gt_units", otherwise="not_mentioned")
    if not reference:
        raise InvalidReply("Gt_units is empty")
    return Judgement(predicted, reference, judge="")


def _units(reply: dict[str, object], key: str, *, otherwise: Label) -> tuple[Unit, ...]:
    return tuple(_unit(row, f"{key}[{index}]", otherwise) for index, row in enumerate(read_list(reply, key)))


def _unit(row: object, where: str, otherwise: Label) -> Unit:
    if not isinstance(row, dict):
        raise InvalidReply(f"{where} is not an object")
    text = read_text(row.get("units"), f"{where}.units")
    response, tag = row.get("response"), row.get("tag")
    if not isinstance(response, str):
        raise InvalidReply(f"{where}.response is not a string")
    return Unit(
        text=text,
        tag=tag if tag == "motion" or tag == "detail" else guess_tag(text),
        label="supported" if response == "Yes" else otherwise,
    )
