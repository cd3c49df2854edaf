-- Appends messages to one partition: a lock, a look at the newest batch, an insert.
-- Offsets are contiguous and in commit order because the partition's row stays locked until the commit has been
-- seen by whoever locks it next; the primary key is the proof where a lock alone is not (a moving shard: 23505).
-- once_* run side by side: idempotency keys, where they live, the digest of the payload they came with and the
-- position of their message in this call. A key is taken over when its window has passed or its message was purged;
-- one that still counts raises 23505, and the caller looks it up.
-- Raises LP404 when the partition is gone and LP412 when the caller knows another version of the topic.
create or replace function append(
    p bigint, known_version int, message_keys text[], metas jsonb[], messages bytea[], is_timed boolean,
    once_homes bigint[], once_keys text[], once_digests bytea[], once_at int[], once_window_ms bigint)
returns table (base_offset bigint, published_at timestamptz)
language plpgsql as $$
declare
    the_version int;
    retained_from bigint;
    next_offset bigint;
    base bigint;
    last_at timestamptz;
    t timestamptz;
    kept int;
begin
    select l.version, l.first_offset into the_version, retained_from
    from partitions l where l.id = p for no key update;
    if not found then
        raise exception 'partition is gone' using errcode = 'LP404', detail = p::text;
    elsif the_version <> known_version then
        raise exception 'topic has changed' using errcode = 'LP412', detail = p::text;
    end if;

    select b.base_offset + b.count, b.published_at into next_offset, last_at
    from batches b where b.partition_id = p order by b.base_offset desc limit 1;
    base := greatest(next_offset, retained_from);
    t := clock_timestamp();
    t := greatest(t, last_at);

    insert into batches (partition_id, base_offset, count, published_at, timed, keys, meta, payloads)
    values (p, base, cardinality(messages), t, is_timed, message_keys, metas, messages);

    if once_keys is not null then
        insert into idempotency_keys as k (partition_id, key, digest, target_id, "offset", published_at)
        select o.home, o.key, o.digest, p, base + o.at, t
        from unnest(once_homes, once_keys, once_digests, once_at) o (home, key, digest, at)
        on conflict (partition_id, key) do update
        set digest = excluded.digest, target_id = excluded.target_id, "offset" = excluded."offset",
            published_at = excluded.published_at
        where k.published_at <= t - make_interval(secs => once_window_ms / 1000.0)
           or k.published_at <= (select l.purged_at from partitions l where l.id = k.target_id);
        get diagnostics kept = row_count;
        if kept < cardinality(once_keys) then
            raise exception 'idempotency key is in use' using errcode = '23505', detail = p::text;
        end if;
    end if;

    return query select base, t;
end $$;
