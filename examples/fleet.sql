-- What the nodes of a fleet used, from the same files that `dlpm report DIR...` reads, with DuckDB 1.3 or newer.
--
--   duckdb fleet.db -c "SET VARIABLE files = 'nodes/*/finished*.jsonl'" -f fleet.sql
--
-- Without `files`, those of this node are read, as root. Sums are whole numbers of any size (HUGEINT): ns and µJ.
SET VARIABLE files = coalesce(getvariable('files'), '/var/lib/dlpm/finished*.jsonl');

-- A line has the node, the start of the machine and a number: a line that was copied counts once.
CREATE OR REPLACE TABLE lives AS
SELECT DISTINCT ON (node_id, boot_id, number) *
FROM read_json(
    getvariable('files'), format = 'newline_delimited', union_by_name = true, maximum_object_size = 33554432,
    columns = {
        number: 'UBIGINT', node_id: 'VARCHAR', boot_id: 'VARCHAR', tenant: 'VARCHAR', inside: 'VARCHAR[]',
        labels: 'MAP(VARCHAR, VARCHAR)', begin_unix_ns: 'BIGINT', end_unix_ns: 'BIGINT', cpu_ns: 'UBIGINT',
        energy_uj: 'MAP(VARCHAR, UBIGINT)', methods: 'MAP(VARCHAR, VARCHAR[])', idle_policy: 'VARCHAR'
    });

-- One row for each line: whose it is, and what was used. A container in a job is of the job, the innermost one.
CREATE OR REPLACE VIEW used AS
WITH told AS (
    SELECT *,
        list_filter(list_append(coalesce(inside, []), tenant),
            lambda node: split_part(node, ':', 1) IN ('slurm', 'oar', 'pbs', 'htcondor'))[-1] AS job,
        labels['cluster'] AS said,
        list_transform(map_entries(energy_uj), lambda entry: {
            'device': entry.key, 'uj': entry.value::HUGEINT}) AS devices
    FROM lives)
SELECT node_id AS node, job,
    -- A job's line without a cluster is of the one cluster that has such a job.
    CASE WHEN job IS NULL THEN NULL
         WHEN said IS NULL AND count(DISTINCT said) OVER same = 1 THEN max(said) OVER same
         ELSE said END AS cluster,
    labels['user'] AS "user", labels['account'] AS account, tenant, begin_unix_ns, end_unix_ns, cpu_ns::HUGEINT AS cpu_ns,
    list_sum(list_transform(devices, lambda device: device.uj)) AS energy_uj,
    list_sum(list_transform(list_filter(devices, lambda device: device.device LIKE 'dram%'), lambda device: device.uj))
        AS dram_uj,
    list_sum(list_transform(list_filter(devices, lambda device: device.device LIKE 'gpu%'), lambda device: device.uj))
        AS gpu_uj
FROM told
WINDOW same AS (PARTITION BY job);

CREATE OR REPLACE VIEW by_node AS
SELECT node, count(*) AS lives, sum(cpu_ns) AS cpu_ns, sum(energy_uj) AS energy_uj
FROM used GROUP BY node ORDER BY energy_uj DESC;

CREATE OR REPLACE VIEW by_job AS
SELECT job, cluster, list(DISTINCT node ORDER BY node) AS nodes, count(*) AS lives, sum(cpu_ns) AS cpu_ns,
    sum(energy_uj) AS energy_uj, sum(dram_uj) AS dram_uj, sum(gpu_uj) AS gpu_uj
FROM used GROUP BY job, cluster ORDER BY energy_uj DESC;

CREATE OR REPLACE VIEW by_user AS
SELECT "user", count(*) AS lives, sum(cpu_ns) AS cpu_ns, sum(energy_uj) AS energy_uj
FROM used GROUP BY "user" ORDER BY energy_uj DESC;

CREATE OR REPLACE VIEW by_account AS
SELECT account, count(*) AS lives, sum(cpu_ns) AS cpu_ns, sum(energy_uj) AS energy_uj
FROM used GROUP BY account ORDER BY energy_uj DESC;

-- To keep them for long, with a twentieth of the room or less:
--   COPY lives TO 'lives.parquet' (FORMAT parquet, COMPRESSION zstd);

FROM by_node;
FROM by_job;
FROM by_user;
FROM by_account;
