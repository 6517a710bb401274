"""Hugging Face's client asks questions of the server as of one of its endpoints.

    hugging_face.py --http HOST:PORT
"""

import asyncio

from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

import checks

TOKEN = "unused"  # without one the client looks for the user's
args = checks.parse_arguments()
base = f"http://{args.http}"
urls = [base, base + "/", f"{base}/models/{args.model}", f"{base}/pipeline/question-answering/{args.model}"]
client = InferenceClient(urls[1], token=TOKEN)


def offsets():
    """every path answers, with offsets in code points"""
    for url in urls:
        a = InferenceClient(url, token=TOKEN).question_answering(question=checks.QUESTION, context=checks.CONTEXT)
        assert a.answer == checks.ANSWER, a
        assert (a.start, a.end) == (checks.START, checks.END), (a, checks.START, checks.END)
        assert checks.CONTEXT[a.start:a.end] == a.answer
        assert 0 < a.score <= 1, a


def model_per_call():
    """the model's URL may come with the call"""
    a = InferenceClient(token=TOKEN).question_answering(checks.QUESTION, checks.CONTEXT, model=urls[2])
    assert a.answer == checks.ANSWER, a


def top_k():
    """top_k answers, the best first"""
    best = client.question_answering(checks.QUESTION, checks.CONTEXT)
    one = client.question_answering(checks.QUESTION, checks.CONTEXT, top_k=1)
    one, = one if isinstance(one, list) else [one]
    assert one.answer == best.answer
    answers = client.question_answering(checks.QUESTION, checks.CONTEXT, top_k=5)
    assert 1 < len(answers) <= 5 and answers[0] == best, answers
    assert [a.score for a in answers] == sorted((a.score for a in answers), reverse=True), answers
    for a in answers:
        assert checks.CONTEXT[a.start:a.end] == a.answer, a
    assert len({(a.start, a.end) for a in answers}) == len(answers), answers
    many = client.question_answering(checks.QUESTION, checks.CONTEXT, top_k=100)
    assert len(answers) < len(many) <= 100


def parameters():
    """the server takes the parameters of the task"""
    a = client.question_answering(checks.QUESTION, checks.CONTEXT, max_seq_len=64, doc_stride=16, max_question_len=32,
                                  max_answer_len=15, align_to_words=True)
    assert a.answer == checks.ANSWER, a
    long = " ".join(["Nothing is said here of any lantern."] * 40) + " " + checks.CONTEXT
    a = client.question_answering("Where was the lantern of the lighthouse cast?", long, max_seq_len=96, doc_stride=32)
    assert a.answer == checks.ANSWER and long[a.start:a.end] == a.answer, a
    short = client.question_answering("How many panes has the lantern?", checks.CONTEXT, max_answer_len=1)
    assert " " not in short.answer, short


def impossible():
    """handle_impossible_answer allows an empty answer"""
    question, context = "What is the name of the emperor's horse?", "Bread is baked of flour and water."
    a = client.question_answering(question, context)
    assert a.answer, a
    answers = client.question_answering(question, context, handle_impossible_answer=True, top_k=20)
    none = [a for a in answers if a.answer == ""]
    assert len(none) == 1 and (none[0].start, none[0].end) == (0, 0), answers
    a = client.question_answering(checks.QUESTION, checks.CONTEXT, handle_impossible_answer=True)
    assert a.answer in (checks.ANSWER, ""), a


def refusals():
    """a question that cannot be answered is refused with the reason"""
    def message(status, call):
        try:
            call()
        except HfHubHTTPError as error:
            assert error.response.status_code == status, error
            text = error.response.json()["error"]
            print("    refused:", status, text)
            return text
        raise AssertionError("no error")

    assert "question is empty" in message(400, lambda: client.question_answering("  ", checks.CONTEXT))
    assert "top_k" in message(400, lambda: client.question_answering(checks.QUESTION, checks.CONTEXT, top_k=-1))
    assert "another" in message(404, lambda: client.question_answering(checks.QUESTION, checks.CONTEXT, model=base + "/models/another"))
    assert "max_answer_len" in message(400, lambda: client.question_answering(checks.QUESTION, checks.CONTEXT, max_answer_len=-1))
    assert "1048576" in message(400, lambda: client.question_answering(checks.QUESTION, "a " * (1 << 20)))
    assert client.question_answering(checks.QUESTION, checks.CONTEXT).answer == checks.ANSWER


def asynchronous():
    """the asyncio client asks many questions at once"""
    async def ask():
        async with AsyncInferenceClient(urls[2], token=TOKEN) as client:
            return await asyncio.gather(*(client.question_answering(checks.QUESTION, checks.CONTEXT) for _ in range(16)))

    assert [a.answer for a in asyncio.run(ask())] == [checks.ANSWER] * 16


checks.run_checks(offsets, model_per_call, top_k, parameters, impossible, refusals, asynchronous)
