#!/usr/bin/env python3
"""Checks the demo's Kibana dashboard against a server: every reference resolves, and every panel's query answers.

Usage: check.py URL          the indices that `standpipe demo` filled: every field has the type that its panel needs, every panel has data
       check.py --seed URL   a server without them: writes known documents, compares every number of every panel with one computed here

Speaks to Elasticsearch or OpenSearch, never to Kibana: a panel (Lens) is translated into the aggregation that Kibana sends for it. Called by
the tests (tests/tests/services_kibana.rs) and by hand; the dashboard itself is dashboard.ndjson beside this file, an export of Kibana's saved objects: edit it in Kibana.
Exit: 0 all is well, 1 a panel is wrong, 2 usage, 3 the server cannot be reached.
"""

import datetime
import json
import math
import pathlib
import re
import sys
import urllib.error
import urllib.request

DASHBOARD = pathlib.Path(__file__).with_name("dashboard.ndjson")
METRICS = {"average": "avg", "min": "min", "max": "max", "sum": "sum"}
# "auto" is computed by Kibana from the time range and the panel's width; any one does for the check.
INTERVAL_SECONDS = 30
NUMERIC = {"byte", "short", "integer", "long", "half_float", "float", "double", "scaled_float", "unsigned_long"}

# By the pattern of the data view: every run of the demo makes indices of its own.
MAPPINGS = {
    "standpipe-signal-windows-*": {
        "baseline_id": "integer", "window_start": "date", "window_end": "date",
        "mean": "float", "max": "float", "min": "float", "n": "long", "flags": "long",
    },
    "standpipe-flag-runs-*": {"baseline_id": "integer", "run_length": "long", "end_time": "date"},
    "standpipe-current-flag-*": {"baseline_id": "integer", "flag": "integer", "create_time": "date"},
}


class Wrong(Exception):
    """What is wrong with the dashboard or its data, in one line."""


def call(url, path, method="GET", body=None):
    """The server's JSON answer; `body` is an object, or text that is sent as it is (bulk)."""
    data = None if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
    request = urllib.request.Request(f"{url}/{path}", data, {"content-type": "application/json"}, method=method)
    # The servers are local: no proxy of the environment.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        return json.load(answer)


def load():
    """The dashboard's panels as (title, data view, layer) in their order, and its time range; all references are followed."""
    objects = [json.loads(line) for line in DASHBOARD.read_text().splitlines()]
    by_id = {(o["type"], o["id"]): o for o in objects}
    if len(by_id) != len(objects):
        raise Wrong("two objects have one id")

    def follow(source, name):
        for reference in source["references"]:
            if reference["name"] == name:
                target = by_id.get((reference["type"], reference["id"]))
                if target is not None:
                    return target
        raise Wrong(f"{source['type']} {source['id']}: reference {name} leads nowhere")

    (dashboard,) = [o for o in objects if o["type"] == "dashboard"]
    panels = []
    for panel in json.loads(dashboard["attributes"]["panelsJSON"]):
        lens = follow(dashboard, f"{panel['panelIndex']}:{panel['panelRefName']}")
        for layer_id, layer in lens["attributes"]["state"]["datasourceStates"]["formBased"]["layers"].items():
            view = follow(lens, f"indexpattern-datasource-layer-{layer_id}")
            if set(layer["columnOrder"]) != set(layer["columns"]):
                raise Wrong(f"{lens['id']}: columnOrder is not its columns")
            check_shown(lens, layer)
            panels.append((lens["attributes"]["title"], view["attributes"], layer))
    if len(objects) != 1 + len(panels) + len({view["title"] for _, view, _ in panels}):
        raise Wrong("an object is used by no panel")
    return panels, dashboard["attributes"]


def check_shown(lens, layer):
    """Every column that the chart shows exists, and every column is shown."""
    visualization = lens["attributes"]["state"]["visualization"]
    shown = [column["columnId"] for column in visualization.get("columns", [])]
    for part in visualization.get("layers", []):
        shown += [part["xAccessor"], part["splitAccessor"], *part["accessors"]]
    if sorted(shown) != sorted(layer["columns"]):
        raise Wrong(f"{lens['id']}: shows {shown}, has {list(layer['columns'])}")


def split(layer):
    """The layer's columns, those that make buckets (outermost first) and those that measure, each as (id, column)."""
    columns = [(name, layer["columns"][name]) for name in layer["columnOrder"]]
    return [c for c in columns if c[1]["isBucketed"]], [c for c in columns if not c[1]["isBucketed"]]


def bucket_aggregation(column):
    params = column["params"]
    if column["operationType"] == "date_histogram":
        return {"date_histogram": {"field": column["sourceField"], "fixed_interval": f"{INTERVAL_SECONDS}s", "min_doc_count": 1}}
    if column["operationType"] == "terms" and params["orderBy"]["type"] == "alphabetical":
        return {"terms": {"field": column["sourceField"], "size": params["size"], "order": {"_key": params["orderDirection"]}}}
    raise Wrong(f"no translation of {column['operationType']}")


def metric_aggregation(column, has_top_metrics):
    operation, field = column["operationType"], column["sourceField"]
    if operation in METRICS:
        return {METRICS[operation]: {"field": field}}
    if operation == "last_value":
        sort = {column["params"]["sortField"]: "desc"}
        # Kibana sends top_metrics, which OpenSearch lacks; top_hits with the same order gives the same.
        return {"top_metrics": {"metrics": {"field": field}, "sort": sort}} if has_top_metrics else {
            "top_hits": {"size": 1, "sort": [sort], "_source": [field]}}
    raise Wrong(f"no translation of {operation}")


def moment(text):
    """A bound of the dashboard's time range, `now` or `now-15m`, as Kibana sends it: by the clock of who looks. A server's own `now` may be some tenths behind it."""
    parts = re.fullmatch(r"now(?:-(\d+)([smhd]))?", text)
    if parts is None:
        raise Wrong(f"no translation of the time {text}")
    seconds = int(parts[1] or 0) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[parts[2] or "s"]
    at = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=seconds)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def query(layer, view, times, has_top_metrics):
    buckets, metrics = split(layer)
    inner = {name: metric_aggregation(c, has_top_metrics) for name, c in metrics if c["operationType"] != "count"}
    for name, column in reversed(buckets):
        inner = {name: {**bucket_aggregation(column), **({"aggs": inner} if inner else {})}}
    time_range = {view["timeFieldName"]: {"gte": moment(times["timeFrom"]), "lte": moment(times["timeTo"])}}
    return {"size": 0, "query": {"bool": {"filter": [{"range": time_range}]}}, "aggs": inner}


def metric_value(name, column, bucket):
    operation = column["operationType"]
    if operation == "count":
        return bucket["doc_count"]
    answer = bucket[name]
    if "top" in answer:
        return answer["top"][0]["metrics"][column["sourceField"]]
    if "hits" in answer:
        return answer["hits"]["hits"][0]["_source"][column["sourceField"]]
    return answer["value"]


def rows(layer, answer):
    """The server's answer as {bucket keys: metric values}."""
    buckets, metrics = split(layer)
    found = {}

    def descend(node, depth, keys):
        if depth == len(buckets):
            found[keys] = tuple(metric_value(name, column, node) for name, column in metrics)
            return
        for bucket in node[buckets[depth][0]]["buckets"]:
            descend(bucket, depth + 1, (*keys, bucket["key"]))

    descend(answer["aggregations"], 0, ())
    return found


def milliseconds(text):
    return int(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def reference_rows(layer, documents):
    """What `rows` must give for these documents, computed naively."""
    buckets, metrics = split(layer)

    def key(column, document):
        value = document[column["sourceField"]]
        width = INTERVAL_SECONDS * 1000
        return milliseconds(value) // width * width if column["operationType"] == "date_histogram" else value

    def measure(column, group):
        operation = column["operationType"]
        if operation == "count":
            return len(group)
        if operation == "last_value":
            return max(group, key=lambda d: milliseconds(d[column["params"]["sortField"]]))[column["sourceField"]]
        values = [d[column["sourceField"]] for d in group]
        values = [milliseconds(v) for v in values] if column["dataType"] == "date" else values
        return {"average": math.fsum(values) / len(values), "min": min(values), "max": max(values), "sum": math.fsum(values)}[operation]

    groups = {}
    for document in documents:
        groups.setdefault(tuple(key(column, document) for _, column in buckets), []).append(document)
    return {keys: tuple(measure(column, group) for _, column in metrics) for keys, group in groups.items()}


def check_fields(url, view, layer):
    """Every field of the panel exists in the index with a type that its aggregation can use."""
    fields = call(url, f"{view['title']}/_field_caps?fields=*")["fields"]
    wanted = {view["timeFieldName"]: "date"}
    for column in layer["columns"].values():
        if column["operationType"] != "count":
            wanted[column["sourceField"]] = column["dataType"]
    for field, kind in wanted.items():
        types = set(fields.get(field, {}))
        if not types or types - ({"date", "date_nanos"} if kind == "date" else NUMERIC):
            raise Wrong(f"{view['title']}.{field} is {'/'.join(sorted(types)) or 'absent'}, its panel needs a {kind}")


def known_documents():
    """Documents of the last minutes for each index, and one of yesterday that no panel may count."""
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)

    def at(seconds):
        return (now - datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def windows(baseline, step):
        end = 15 * step + 30
        # Quarters are exact as floats, so that the numbers can be compared exactly.
        return {"baseline_id": baseline, "window_start": at(end + 15), "window_end": at(end), "mean": (step % 7 - 3) / 4,
                "min": -baseline / 4, "max": baseline / 4 + step, "n": 10 + step, "flags": step % 5}

    baselines = [42, 22, 5, 11, 3]
    signal = [windows(b, s) for b in baselines for s in range(20)]
    runs = [{"baseline_id": b, "run_length": 1 + (i * i + b) % 6, "end_time": at(30 + 7 * i)} for b in baselines for i in range(12)]
    current = [{"baseline_id": b, "flag": (b + i) % 2, "create_time": at(40 + b + i)} for b in baselines for i in range(3)]
    old = 24 * 3600
    return {
        "standpipe-signal-windows-*": (signal, {**signal[0], "window_start": at(old + 15), "window_end": at(old), "n": 10**6, "flags": 10**6}),
        "standpipe-flag-runs-*": (runs, {**runs[0], "run_length": 10**6, "end_time": at(old)}),
        "standpipe-current-flag-*": (current, {"baseline_id": 7, "flag": 1, "create_time": at(old)}),
    }


def seed(url, documents):
    for pattern, (inside, outside) in documents.items():
        index = pattern.replace("*", "seed")
        properties = {field: {"type": kind} for field, kind in MAPPINGS[pattern].items()}
        call(url, index, "PUT", {"mappings": {"properties": properties}, "settings": {"number_of_replicas": 0}})
        lines = "".join('{"index":{}}\n' + json.dumps(document) + "\n" for document in [*inside, outside])
        if call(url, f"{index}/_bulk?refresh=true", "POST", lines)["errors"]:
            raise Wrong(f"{index} refuses a document")


def close(a, b):
    return a.keys() == b.keys() and all(len(a[k]) == len(b[k]) and all(map(math.isclose, a[k], b[k])) for k in a)


def check(url, documents):
    panels, times = load()
    has_top_metrics = call(url, "")["version"].get("distribution") != "opensearch"
    for title, view, layer in panels:
        check_fields(url, view, layer)
        found = rows(layer, call(url, f"{view['title']}/_search", "POST", query(layer, view, times, has_top_metrics)))
        if not found:
            raise Wrong(f"{title}: no data between {times['timeFrom']} and {times['timeTo']}")
        if any(value is None for values in found.values() for value in values):
            raise Wrong(f"{title}: a bucket without a value")
        if documents is not None:
            expected = reference_rows(layer, documents[view["title"]][0])
            if not close(found, expected):
                raise Wrong(f"{title}: the server says {found}, the documents {expected}")
        print(f"{title}: {len(found)} buckets of {view['title']}")


def main(arguments):
    seeding = arguments[:1] == ["--seed"]
    urls = arguments[1:] if seeding else arguments
    if len(urls) != 1 or urls[0].startswith("-"):
        print(__doc__.split("\n\n")[1], file=sys.stderr)
        return 2
    url = urls[0].rstrip("/")
    documents = known_documents() if seeding else None
    try:
        if seeding:
            seed(url, documents)
        check(url, documents)
    except Wrong as error:
        print(f"check.py: {error}", file=sys.stderr)
        return 1
    except urllib.error.HTTPError as error:
        print(f"check.py: {error.url}: {error.code} {error.read().decode(errors='replace')[:500]}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"check.py: {url}: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
