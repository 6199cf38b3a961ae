"""What is observed of each request while it is answered: latencies, tokens, how it ended.

Names and buckets are those of vLLM, with `gardener_` for `vllm:`, so that its dashboards are easily
made ours. What belongs to a request lies in its `RequestTimer`. Times are in seconds.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram

from gardener.runtime import clock

FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
BETWEEN_TOKENS = (
    *(0.001, 0.0025, 0.005),  # vLLM begins after these
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
WHOLE = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0),
    *(60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)

REASONS = {
    "eos": "stop",
    "stop": "stop",
    "length": "length",
    "context": "length",
    "abandoned": "abort",
}
"""Finish reason of a session -> the label; any other is an `error`."""

LABELS = ("stop", "length", "abort", "error")


class RequestMetrics:
    """What is observed of all requests for one model."""

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        def histogram(name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
            made = Histogram(name, what, ("model_name",), buckets=buckets, registry=registry)
            return made.labels(model)

        def counter(name: str, what: str) -> Counter:
            return Counter(name, what, ("model_name",), registry=registry).labels(model)

        self.first_token = histogram(
            "gardener_time_to_first_token_seconds",
            "From the request to its first token, the wait for its turn included.",
            FIRST_TOKEN,
        )
        self.between = histogram(
            "gardener_inter_token_latency_seconds",
            "Time between two tokens; those accepted at once share the time since the one before.",
            BETWEEN_TOKENS,
        )
        self.whole = histogram(
            "gardener_e2e_request_latency_seconds",
            "From the request to the end of its answer.",
            WHOLE,
        )
        self.queue = histogram(
            "gardener_request_queue_time_seconds", "Until the turn of a request came.", WHOLE
        )
        self.prompt = counter("gardener_prompt_tokens", "Tokens of prompts.")
        self.cached = counter(
            "gardener_prompt_tokens_cached",
            "Tokens of prompts that were not computed again: another request had begun so.",
        )
        self.generated = counter("gardener_generation_tokens", "Tokens of answers.")
        ended = Counter(
            "gardener_request_success",
            "Requests whose answer ended, by finish reason; `abort`: the client went away; "
            "`error`: it broke.",
            ("model_name", "finished_reason"),
            registry=registry,
        )
        self._ended = {reason: ended.labels(model, reason) for reason in LABELS}
        self._http = Counter(
            "gardener_http_requests",
            "HTTP requests by route and status.",
            ("method", "path", "status"),
            registry=registry,
        )
        self._answered: dict[tuple[str, str, int], Counter] = {}

    def begin(self, prompt_tokens: int, asked: float) -> "RequestTimer":
        """A request has so many tokens in its prompt; it came when the clock was at `asked`."""
        self.prompt.inc(prompt_tokens)
        return RequestTimer(self, asked)

    def finished(self, reason: str | None) -> None:
        """A request has ended; `reason` is that of its session."""
        self._ended[REASONS.get(reason or "", "error")].inc()

    def answered(self, method: str, route: str, status: int) -> None:
        """An HTTP request has its response. `method` and `route` must be of a few known ones."""
        key = (method, route, status)
        child = self._answered.get(key)
        if child is None:
            child = self._answered[key] = self._http.labels(method, route, str(status))
        child.inc()


class RequestTimer:
    """One request, from when it was asked. `tokens` is told of what is on the way of every token:
    it takes a few microseconds."""

    def __init__(self, metrics: RequestMetrics, asked: float) -> None:
        self._metrics, self._asked = metrics, asked
        self.last: float | None = None  # when the newest token came
        self.count = 0  # tokens until now

    @property
    def seconds(self) -> float:
        """Since it was asked."""
        return clock.now() - self._asked

    def tokens(self, count: int) -> None:
        """So many came at once."""
        if not count:
            return
        now, last, metrics = clock.now(), self.last, self._metrics
        self.last = now
        self.count += count
        metrics.generated.inc(count)
        if last is None:
            metrics.first_token.observe(now - self._asked)
            return
        each = (now - last) / count
        for _ in range(count):
            metrics.between.observe(each)

    def ended(self, reason: str | None, waited: float | None, cached_tokens: int) -> None:
        """The answer is over. `waited`: seconds until its turn came; None: it never did."""
        metrics = self._metrics
        metrics.whole.observe(self.seconds)
        if waited is not None:
            metrics.queue.observe(waited)
        metrics.cached.inc(cached_tokens)
        metrics.finished(reason)
