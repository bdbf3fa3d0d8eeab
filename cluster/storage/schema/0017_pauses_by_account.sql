-- Backfill queue: a provider that counts by key is paused for those who ask it with the same key.

ALTER TABLE backfill_pauses
    ADD COLUMN account text;               -- provider, and a digest of the key where the provider counts by it
UPDATE backfill_pauses SET account = provider;
ALTER TABLE backfill_pauses
    DROP CONSTRAINT backfill_pauses_pkey,
    ADD PRIMARY KEY (account);

-- As before but for the accounts.
DROP FUNCTION claim_backfill_jobs(text, integer, interval, text[], integer[], text[], integer[], text[]);
DROP FUNCTION take_backfill_slot(bigint, uuid, text, integer);

-- Up to `most` jobs for `worker`, most urgent first. Statements of a function have snapshots of their own: what
-- is counted after the lock is what holds. Where no limit is set, nobody waits for anybody.
--   tiers, tier_limits          most running jobs; null: no limit
--   providers, provider_limits  most running jobs of those providers that have a limit
--   routes                      whom jobs that name no provider may be routed to; null: not known
--   accounts                    by provider whose calls ours count with; of others: the provider's name
CREATE FUNCTION claim_backfill_jobs(
    worker text, most integer, lease interval, tiers text[], tier_limits integer[],
    providers text[], provider_limits integer[], routes text[], accounts jsonb
) RETURNS SETOF backfill_jobs LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    is_limited CONSTANT boolean :=
        cardinality(providers) > 0 OR cardinality(array_remove(tier_limits, NULL)) > 0;
    moment timestamptz;
    line_tiers text[] := '{}';
    line_providers text[] := '{}';
    tier_free bigint[];
    provider_free bigint[];
    at_tier text := 'U';  -- after every tier
    at_provider text := '';
    chosen bigint[];
BEGIN
    -- A claim that a crash of the server forgets leaves a ready job, and its worker is refused.
    PERFORM set_config('synchronous_commit', 'off', true);
    IF is_limited THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('backfill claims', 0));
    END IF;
    moment := clock_timestamp();
    IF EXISTS (SELECT FROM backfill_jobs WHERE state = 'leased' AND lease_until <= moment) THEN
        WITH expired AS (
            SELECT * FROM backfill_jobs WHERE state = 'leased' AND lease_until <= moment
            FOR UPDATE SKIP LOCKED),
        kept AS (
            INSERT INTO backfill_attempts (job_id, token, attempt, worker, started_at, ended_at, outcome)
            SELECT id, lease_token, attempt, leased_by, leased_at, moment, 'lease_expired' FROM expired)
        UPDATE backfill_jobs j
        SET state = CASE WHEN j.attempt >= j.max_attempts THEN 'dead' ELSE 'ready' END,
            finished_at = CASE WHEN j.attempt >= j.max_attempts THEN moment END,
            run_at = moment, reason = 'lease_expired', lease_token = NULL, lease_until = NULL
        FROM expired WHERE j.id = expired.id;
        -- No time limit ends a transaction whose client froze inside of a statement (between the messages of one,
        -- in a COPY): who holds a job so for a whole lease beyond its own is ended here.
        PERFORM pg_terminate_backend(holder.pid)
        FROM backfill_jobs j
        JOIN pg_locks held ON held.locktype = 'transactionid' AND held.transactionid = j.xmax AND held.granted
        JOIN pg_stat_activity holder ON holder.pid = held.pid
        WHERE j.state = 'leased' AND j.lease_until <= moment - lease
          AND holder.wait_event = 'ClientRead' AND holder.usename = current_user;
    END IF;
    -- All (tier, provider) that have ready jobs, by hops over the index: from the last job of a line to that of
    -- the one before. At the head of a line are the entries of jobs already claimed; while an old transaction
    -- keeps them from being cleaned up, each look there costs a visit to all of them.
    LOOP
        SELECT tier, coalesce(provider, '') INTO at_tier, at_provider FROM backfill_jobs
        WHERE state = 'ready' AND (tier, coalesce(provider, '')) < (at_tier, at_provider)
        ORDER BY tier DESC, coalesce(provider, '') DESC LIMIT 1;
        EXIT WHEN NOT FOUND;
        line_tiers := line_tiers || at_tier;
        line_providers := line_providers || at_provider;
    END LOOP;
    IF is_limited OR EXISTS (
        SELECT FROM backfill_pauses WHERE until > moment AND account = coalesce(accounts ->> provider, provider))
    THEN
        -- An expired lease that is still here is held by a worker that writes at this moment: it counts.
        WITH running AS MATERIALIZED (
            SELECT tier, asked, count(*) AS jobs FROM backfill_jobs WHERE state = 'leased' GROUP BY tier, asked),
        tier_room AS MATERIALIZED (
            SELECT tier, at_most - coalesce((SELECT sum(jobs) FROM running r WHERE r.tier = one.tier), 0) AS free
            FROM unnest(tiers, tier_limits) AS one (tier, at_most)),
        provider_room AS MATERIALIZED (
            SELECT provider, min(free) AS free FROM (
                SELECT provider,
                       at_most - coalesce((SELECT sum(jobs) FROM running r WHERE r.asked = one.provider), 0) AS free
                FROM unnest(providers, provider_limits) AS one (provider, at_most)
                UNION ALL
                SELECT provider, 0 FROM backfill_pauses
                WHERE until > moment AND account = coalesce(accounts ->> provider, provider)) AS each
            GROUP BY provider),
        -- Jobs to be routed wait only when everybody is closed to whom they could go.
        routed AS MATERIALIZED (
            SELECT CASE WHEN bool_and(coalesce(free, 1) <= 0) THEN 0 END AS free
            FROM unnest(routes) AS route LEFT JOIN provider_room ON provider = route),
        room AS (
            SELECT tier, provider, coalesce(tier_room.free, most) AS in_tier,
                   coalesce(CASE provider WHEN '' THEN (SELECT free FROM routed) ELSE provider_room.free END, most)
                       AS in_provider
            FROM unnest(line_tiers, line_providers) AS line (tier, provider)
            LEFT JOIN tier_room USING (tier) LEFT JOIN provider_room USING (provider))
        SELECT array_agg(tier), array_agg(provider), array_agg(in_tier), array_agg(in_provider)
        INTO line_tiers, line_providers, tier_free, provider_free
        FROM room WHERE in_tier > 0 AND in_provider > 0;
    END IF;
    IF cardinality(line_tiers) = 1 THEN
        SELECT array_agg(id) INTO chosen FROM (
            SELECT id FROM backfill_jobs
            WHERE state = 'ready' AND tier = line_tiers[1] AND coalesce(provider, '') = line_providers[1]
              AND run_at <= moment
            ORDER BY due, id LIMIT least(most, tier_free[1], provider_free[1])
            FOR UPDATE SKIP LOCKED) AS first;
    ELSE
        WITH head AS (
            SELECT id, due, tier, line.provider, in_tier, in_provider
            FROM unnest(line_tiers, line_providers, tier_free, provider_free)
                AS line (line_tier, provider, in_tier, in_provider)
            CROSS JOIN LATERAL (
                SELECT id, due, tier FROM backfill_jobs AS j
                WHERE state = 'ready' AND tier = line_tier AND coalesce(j.provider, '') = line.provider
                  AND run_at <= moment
                ORDER BY due, id LIMIT least(most, in_tier, in_provider)
                FOR UPDATE SKIP LOCKED) AS first),
        ranked AS (
            SELECT id, due, provider = '' AS is_routed, in_tier, in_provider,
                   row_number() OVER (PARTITION BY tier ORDER BY due, id) AS tier_rank,
                   row_number() OVER (PARTITION BY provider ORDER BY due, id) AS provider_rank
            FROM head)
        SELECT array_agg(id) INTO chosen FROM (
            SELECT id FROM ranked
            WHERE tier_rank <= coalesce(in_tier, most) AND (is_routed OR provider_rank <= coalesce(in_provider, most))
            ORDER BY due, id LIMIT most) AS first;
    END IF;
    RETURN QUERY
    WITH taken AS (
        UPDATE backfill_jobs j
        SET state = 'leased', attempt = j.attempt + 1, lease_token = gen_random_uuid(),
            lease_until = clock_timestamp() + lease, leased_by = worker, leased_at = moment,
            asked = j.provider, started_at = coalesce(j.started_at, moment)
        WHERE id = ANY (chosen)
        RETURNING j.*)
    SELECT * FROM taken ORDER BY due, id;
END
$$;

-- A slot of `chosen`, whom we ask with `ours`, for a leased job that was routed there. No row: the lease is lost.
-- Not taken: when to ask again.
CREATE FUNCTION take_backfill_slot(job bigint, token uuid, chosen text, ours text, most integer)
RETURNS TABLE (taken boolean, retry_at timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz;
    paused_until timestamptz;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    IF most IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('backfill claims', 0));
    END IF;
    moment := clock_timestamp();
    SELECT until INTO paused_until FROM backfill_pauses WHERE account = ours AND until > moment;
    IF paused_until IS NULL AND most <= (
        SELECT count(*) FROM backfill_jobs WHERE state = 'leased' AND asked = chosen AND id <> job)
    THEN
        paused_until := moment + interval '1 second';
    END IF;
    IF paused_until IS NULL AND most IS NULL THEN
        RETURN QUERY SELECT true, NULL::timestamptz;
    ELSIF paused_until IS NULL THEN
        RETURN QUERY UPDATE backfill_jobs SET asked = chosen
            WHERE id = job AND lease_token = token AND lease_until > moment RETURNING true, NULL::timestamptz;
    ELSE
        RETURN QUERY SELECT false, paused_until;
    END IF;
END
$$;
