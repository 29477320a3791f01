"""The client against a running cluster, whose port is in STANDPIPE_TEST_PORT: tests/tests/services_python.rs starts it."""

import datetime
import decimal
import json
import os
import pathlib
import tempfile
import unittest

import pandas
import pyarrow as pa

from standpipe import JobFailed, NotFound, Refused, Session, Status, Unreachable

PORT = int(os.environ["STANDPIPE_TEST_PORT"])

# Every type that a pipeline file knows: as it is written there, a value in JSON, its Arrow type, the value in Python.
# Timestamps are of UTC and have no zone.
EPOCH = datetime.datetime(1970, 1, 1)
TYPES = [
    ("bool", "true", pa.bool_(), True),
    ("int8", "-8", pa.int8(), -8),
    ("int16", "-16", pa.int16(), -16),
    ("int32", "-32", pa.int32(), -32),
    ("int64", "-9007199254740993", pa.int64(), -9007199254740993),
    ("uint8", "255", pa.uint8(), 255),
    ("uint16", "65535", pa.uint16(), 65535),
    ("uint32", "4294967295", pa.uint32(), 4294967295),
    ("uint64", "18446744073709551615", pa.uint64(), 18446744073709551615),
    ("float32", "0.5", pa.float32(), 0.5),
    ("float64", "0.1", pa.float64(), 0.1),
    ("decimal(10, 2)", "12345678.90", pa.decimal128(10, 2), decimal.Decimal("12345678.90")),
    ("decimal(50, 3)", "12345678901234567890123456789012345678901234567.125", pa.decimal256(50, 3), decimal.Decimal("12345678901234567890123456789012345678901234567.125")),
    ("string", '"a\\nß😀"', pa.string(), "a\nß😀"),
    ("binary", '"AP8="', pa.binary(), b"\x00\xff"),
    ("date", '"2024-02-29"', pa.date32(), datetime.date(2024, 2, 29)),
    ("time", '"23:59:59.000001"', pa.time64("us"), datetime.time(23, 59, 59, 1)),
    ("timestamp", '"2024-01-31T23:59:59.5Z"', pa.timestamp("us"), datetime.datetime(2024, 1, 31, 23, 59, 59, 500000)),
    ("timestamp_s", "1700000000", pa.timestamp("s"), EPOCH + datetime.timedelta(seconds=1700000000)),
    ("timestamp_ms", "1700000000001", pa.timestamp("ms"), EPOCH + datetime.timedelta(seconds=1700000000) + datetime.timedelta(milliseconds=1)),
    ("timestamp_us", "1700000000000001", pa.timestamp("us"), EPOCH + datetime.timedelta(seconds=1700000000) + datetime.timedelta(microseconds=1)),
    ("timestamp_ns", "1700000000000001000", pa.timestamp("ns"), pandas.Timestamp(1700000000000001000)),
    ("list<int64>", "[1, null, 3]", pa.list_(pa.int64()), [1, None, 3]),
    ("struct<a: int64, b: string>", '{"a": 1, "b": "x"}', pa.struct([("a", pa.int64()), ("b", pa.string())]), {"a": 1, "b": "x"}),
    ("map<string, float64>", '{"k": 1.5}', pa.map_(pa.string(), pa.float64()), [("k", 1.5)]),
]

NUMBERS = """name: numbers
sources:
  numbers: {connector: generator, with: {WITH fields: {n: {kind: sequence}}}}
sinks:
  rows: {input: numbers, connector: collect}
"""


def plain(type):
    """A type without the names and metadata of its fields, which are the writer's."""
    if pa.types.is_list(type):
        return pa.list_(plain(type.value_type))
    if pa.types.is_map(type):
        return pa.map_(plain(type.key_type), plain(type.item_type))
    if pa.types.is_struct(type):
        return pa.struct([(field.name, plain(field.type)) for field in type])
    return type


class SessionTest(unittest.TestCase):
    def setUp(self):
        self.session = Session("127.0.0.1", PORT)
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        before = os.getcwd()
        os.chdir(self.folder.name)
        self.addCleanup(os.chdir, before)

    def submit(self, text, **options):
        path = pathlib.Path("pipeline.yaml")
        path.write_text(text)
        return self.session.submit(path, **options)

    def numbers(self, options, **more):
        return self.submit(NUMBERS.replace("WITH", options), **more)

    def test_a9_every_type_comes_to_pandas_as_it_is(self):
        names = [f"c{number}" for number in range(len(TYPES))]
        columns = ", ".join(f'{name}: "{written}"' for name, (written, *_) in zip(names, TYPES))
        full = "{" + ", ".join(f'"{name}": {value}' for name, (_, value, *_) in zip(names, TYPES)) + "}"
        pathlib.Path("rows.jsonl").write_text(full + "\n" + json.dumps(dict.fromkeys(names)) + "\n")
        job = self.submit(
            f"""name: types
sources:
  rows: {{connector: file, with: {{path: rows.jsonl}}, format: json, schema: {{{columns}}}}}
sinks:
  out: {{input: rows, connector: collect}}
""",
            resources=["rows.jsonl"],
        )
        table = job.collect().to_arrow()
        self.assertEqual(table.num_rows, 2)
        frame = job.collect("out").to_pandas()
        for name, (written, _, type, value) in zip(names, TYPES):
            with self.subTest(written):
                column = table.column(name)
                self.assertEqual(plain(column.type), type)
                found = column.to_pylist()
                self.assertEqual(found[1], None)
                self.assertEqual(found[0], value)
                dtype = frame.dtypes[name]
                self.assertEqual(plain(dtype.pyarrow_dtype), type)
                self.assertEqual(pa.array(frame[name]).cast(column.type).to_pylist(), found)

    def test_a_job_is_waited_for_and_its_rows_are_read_batch_by_batch(self):
        job = self.numbers("count: 100000,", config={"engine.batch_rows": 1000})
        batches = list(job.collect("rows"))
        self.assertGreater(len(batches), 1)
        self.assertEqual(pa.Table.from_batches(batches).column("n").to_pylist(), list(range(100000)))
        self.assertEqual(job.wait(timeout=60), Status("FINISHED"))
        self.assertEqual(self.session.jobs()[job.id], "FINISHED")
        self.assertEqual(self.session.job({"jobid": job.id}).collect(limit=7).to_pandas()["n"].tolist(), list(range(7)))
        self.assertIn("==> process 0", job.logs())

    def test_a10_what_does_not_end_needs_a_limit_or_a_timeout_and_is_cancelled(self):
        job = self.numbers("rate: 500,")
        with self.assertRaisesRegex(ValueError, "does not end by itself"):
            job.collect()
        with self.assertRaises(TimeoutError):
            job.wait(timeout=0)
        self.assertEqual(job.collect(limit=300).to_arrow().column("n").to_pylist(), list(range(300)))
        self.assertGreaterEqual(job.collect(timeout=0.5).to_arrow().num_rows, 300)
        job.cancel()
        self.assertEqual(job.wait(timeout=60), Status("CANCELED"))
        job.cancel()

    def test_rows_of_any_node_are_seen_as_they_pass(self):
        job = self.numbers("rate: 2000,")
        with self.assertRaisesRegex(ValueError, "does not end by itself"):
            job.collect(node="numbers")
        rows = job.collect(node="numbers", limit=500)
        seen = rows.to_arrow().column("n").to_pylist()
        self.assertEqual(len(seen), 500)
        self.assertEqual(seen, sorted(set(seen)))
        self.assertGreaterEqual(rows.dropped, 0)
        batches = list(job.collect(node="sources.numbers", timeout=1))
        self.assertGreater(pa.Table.from_batches(batches).column("n")[0].as_py(), seen[0])
        job.cancel()
        job.wait(timeout=60)
        with self.assertRaisesRegex(JobFailed, "before it has given rows"):
            job.collect(node="numbers", limit=1).to_arrow()

    def test_a24_what_goes_wrong_is_an_exception_with_its_cause(self):
        with self.assertRaisesRegex(Refused, "pipeline.yaml:2:"):
            self.submit("name: x\nsources: {}\n")
        failing = NUMBERS.replace("connector: generator, with: {WITH fields: {n: {kind: sequence}}}", "connector: file, with: {path: no.jsonl}, format: json, schema: {n: int64}")
        with self.assertRaisesRegex(JobFailed, "no.jsonl"):
            self.submit(failing).wait(timeout=60)
        with self.assertRaisesRegex(JobFailed, "no.jsonl"):
            self.submit(failing).collect(timeout=60).to_arrow()
        with self.assertRaisesRegex(NotFound, "it has sources.numbers, sinks.rows"):
            self.numbers("count: 1,").collect("other")
        with self.assertRaises(NotFound):
            self.session.job("0" * 32).status()
        with self.assertRaises(ValueError):
            self.session.job("../x")
        with self.assertRaisesRegex(ValueError, "rest.port"):
            self.numbers("count: 1,", config={"rest.port": 1})
        with self.assertRaisesRegex(Unreachable, "127.0.0.1:1: "):
            Session("127.0.0.1", 1).jobs()

    def test_a_job_goes_on_from_its_savepoint(self):
        place = pathlib.Path("checkpoints").absolute()
        settings = {"engine.checkpoint.interval": "100ms", "engine.checkpoint.dir": place}
        job = self.numbers("rate: 400, count: 1200,", config=settings)
        job.collect(limit=200).to_arrow()
        savepoint = job.stop()
        self.assertEqual(job.status(), Status("FINISHED"))
        again = self.numbers("rate: 400, count: 1200,", config=settings, restore=savepoint)
        before = job.collect(timeout=5).to_arrow().column("n").to_pylist()
        after = again.collect().to_arrow().column("n").to_pylist()
        self.assertEqual(before + after, list(range(1200)))


if __name__ == "__main__":
    unittest.main()
