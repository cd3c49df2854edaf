-- Hands messages of one partition to one consumer: first deferred ones that are due, then the straight line.
--
--   deferred, due and free ─┐
--                           ├─▶ one lease ─▶ pieces: consecutive messages of one record batch, arrays side by side
--   log, from next_offset ──┤
--                           └─▶ filtered, expired: counted. Blocked key: held. Not due yet: delayed.
--
-- outcome: ok, or why there is nothing: again (the cursor moved, call again), empty, full (what is next is larger than
-- byte_limit), held, leased, busy, paused, max_in_flight. more: there may be more to take here. n_*: what became of
-- others on the way. offsets is null where a piece is contiguous from first_offset; attempts is null where all are
-- first attempts.
--
-- At least one message is taken, however large, where is_first; else none beyond byte_limit.
--
-- Groups with a filter judge messages before they claim: of the range [seen_from, seen_to), refused are hidden (and of
-- those, failed are those that the filter failed for); only that range can be passed.
create or replace function claim(
    p bigint, g int, known_version int, who text, wanted int, byte_limit bigint, lease_ms bigint, mode text,
    flight_limit bigint, siblings int, seen_from bigint, seen_to bigint, refused bigint[], failed bigint[],
    is_first boolean)
returns table (
    outcome text, more boolean, lease_id bigint, lease_deadline timestamptz, lease_epoch int,
    first_offset bigint, offsets bigint[], published timestamptz, keys text[], metas jsonb[], payloads bytea[],
    attempts int[], n_dead int, n_filtered int, n_expired int, n_lost bigint)
language plpgsql rows 10 as $$
#variable_conflict use_column
declare
    held_limit constant int := 10000;  -- waiting in one partition, before the cursor stops and waits as well
    look_ahead constant int := 2000;   -- looked at in one go, beyond what is wanted, if it is not nearer,
    near constant int := 100;          -- within so many more or a few times what is wanted
    c cursors%rowtype; b record;
    t timestamptz; ends timestamptz;
    lease bigint; room bigint; straight_room bigint;
    flying text[]; blocked text[] := '{}';
    waiting bigint := 0;
    is_shared boolean; is_late boolean; is_deferred boolean; is_waiting boolean := false;
    picked bigint[] := '{}';
    picked_bytes bigint := 0;
    taken bigint[] := '{}';
    keyed bigint[]; keyed_keys text[];  -- of what is taken, for others who ask which keys are in flight
    held bigint[]; held_keys text[]; held_expiries timestamptz[];
    late bigint[]; late_keys text[]; late_dues timestamptz[]; late_expiries timestamptz[];
    retained bigint; start bigint; upto bigint;
    from_base bigint; first_base bigint; last_base bigint;
    n_looked int; scanned bigint := 0;
    bytes bigint := 0;
    timed boolean := false;
    plain boolean; may_be_plain boolean;
    ahead int;
    n_late int := 0; n_failed int := 0; is_more boolean := false;
begin
    n_dead := 0; n_filtered := 0; n_expired := 0; n_lost := 0;
    if siblings > 1 and not may_claim_beside(g, flight_limit, siblings) then
        outcome := 'busy'; return next; return;
    end if;
    select * into c from cursors x where x.partition_id = p and x.group_id = g for no key update skip locked;
    if not found then
        perform from cursors x where x.partition_id = p and x.group_id = g;
        if not found then
            raise exception 'cursor is gone' using errcode = 'LP404', detail = p::text;
        end if;
        outcome := 'busy'; return next; return;
    elsif c.version <> known_version then
        raise exception 'group has changed' using errcode = 'LP412', detail = p::text;
    elsif c.paused then
        outcome := 'paused'; return next; return;
    end if;
    t := clock_timestamp();

    loop
        select coalesce(bool_or(l.owner <> who), false), coalesce(bool_or(l.deadline <= t), false),
               exists (select from deferred d where d.partition_id = p and d.group_id = g and d.lease_id is null)
        into is_shared, is_late, is_deferred
        from leases l where l.partition_id = p and l.group_id = g;
        exit when not is_late;
        select e.n_dead into n_dead from expire(p, g, t) e;
    end loop;
    if mode = 'partition' and is_shared then
        outcome := 'leased'; return next; return;
    end if;
    room := least(wanted, flight_limit - in_flight(g, t));
    if room <= 0 then
        outcome := 'max_in_flight'; return next; return;
    end if;
    ends := t + make_interval(secs => lease_ms / 1000.0);
    lease := (extract(epoch from ends) * 1000)::bigint << 20 | floor(random() * 1048576)::bigint;
    if mode = 'key' and is_shared then
        select array_agg(distinct f.key) into flying
        from leases l
        cross join lateral (
            select k.o, k.key from unnest(l.offsets, l.keys) k (o, key)
            union all  -- a lease from before the order was changed to this one
            select e."offset", e.key
            from envelopes_at(p, array(select generate_series(lower(r.r), upper(r.r) - 1) from unnest(l.pending) r (r))) e
            where l.offsets is null) f
        where l.partition_id = p and l.group_id = g and l.owner <> who and f.key is not null and l.pending @> f.o;
    end if;

    -- Deferred messages first.
    if is_deferred then
        delete from deferred d
        where d.partition_id = p and d.group_id = g and d.lease_id is null and d.expires_at <= t;
        get diagnostics n_expired = row_count;
        -- One that was delayed and is due takes its place in its key's row.
        update deferred d set state = 'held', due_at = '-infinity'
        where d.partition_id = p and d.group_id = g and d.lease_id is null and d.state = 'delayed' and d.due_at <= t;
        select x.picked, x.picked_bytes into picked, picked_bytes
        from take_deferred(p, g, t, lease, room::int, byte_limit, mode <> 'none', flying, is_first) x;
        bytes := picked_bytes;
        is_waiting := exists (
            select from deferred d
            where d.partition_id = p and d.group_id = g and d.lease_id is null and d.state <> 'delayed');
        if mode <> 'none' then
            blocked := array(select h.key from waiting_heads(p, g, t) h);
        end if;
        is_more := cardinality(picked) = room or picked_bytes >= byte_limit;
    end if;
    blocked := blocked || coalesce(flying, '{}');
    straight_room := case when picked_bytes < byte_limit then room - cardinality(picked) else 0 end;

    -- Then the straight line: how far to look. What retention took before it was read is lost.
    select x.first_offset into retained from partitions x where x.id = p;
    start := greatest(c.next_offset, retained);
    may_be_plain := cardinality(blocked) = 0 and seen_from is null;
    foreach ahead in array array[case when seen_from is null then greatest(near, 4 * straight_room) else look_ahead end,
                                 look_ahead]
    loop
        first_base := null; bytes := picked_bytes; scanned := 0; timed := false; plain := may_be_plain; upto := start;
        if straight_room > 0 and (seen_from is null or (start >= seen_from and start < seen_to)) then
            select coalesce(max(y.base_offset), start) into from_base
            from batches y where y.partition_id = p and y.base_offset <= start;
            <<walk>>
            loop  -- in steps, because a walk with an open end may be planned as a sort of all there is
                n_looked := 0;
                for b in
                    select x.base_offset, x.count, x.timed, pg_column_size(x.payloads) as size
                    from batches x
                    where x.partition_id = p and x.base_offset >= from_base
                    order by x.base_offset limit 50
                loop
                    n_looked := n_looked + 1;
                    from_base := b.base_offset + b.count;
                    continue when from_base <= start;
                    first_base := coalesce(first_base, b.base_offset);
                    last_base := b.base_offset;
                    timed := timed or b.timed;
                    bytes := bytes + b.size;
                    upto := from_base;
                    scanned := upto - start;
                    exit walk when scanned >= straight_room + case when plain and not timed then 0 else ahead end
                                or bytes > byte_limit;
                end loop;
                exit when n_looked < 50;
            end loop;
        end if;
        plain := plain and not timed and cardinality(picked) = 0 and bytes <= byte_limit;
        -- Counted only now, because it takes longer the more there are.
        if first_base is not null and is_waiting and waiting = 0 then
            select count(*) into waiting from deferred d
            where d.partition_id = p and d.group_id = g and d.lease_id is null and d.state <> 'delayed';
            if waiting >= held_limit then
                first_base := null;
            end if;
        end if;

        if first_base is null then
            upto := start;
        elsif plain then
            is_more := scanned >= straight_room;
            upto := least(upto, start + straight_room);
        else
            is_more := true;
            with source as materialized (
                select x.base_offset + m.i - 1 as o, m.key, octet_length(m.payload) as size,
                       x.published_at + make_interval(secs => (m.meta ->> 'delayMs')::bigint / 1000.0) as due,
                       x.published_at + make_interval(secs => (m.meta ->> 'ttlMs')::bigint / 1000.0) as expiry
                from batches x
                cross join lateral unnest(  -- payloads only where they may be too many bytes
                    case when bytes > byte_limit then x.payloads else array_fill(''::bytea, array[x.count]) end,
                    x.keys, x.meta) with ordinality m (payload, key, meta, i)
                where x.partition_id = p and x.base_offset between first_base and last_base
                  and x.base_offset + m.i - 1 >= start and x.base_offset + m.i - 1 < start + straight_room + ahead
                  and (seen_to is null or x.base_offset + m.i - 1 < seen_to)),
            sorted as (
                select s.*, case when s.expiry <= t then 'expired'
                                 when s.o = any (refused) then 'filtered'
                                 when s.due > t then 'delayed'
                                 when s.key = any (blocked) then 'held'
                                 else 'taken' end as fate
                from source s),
            counted as materialized (
                select s.*, count(*) filter (where s.fate = 'taken') over w as n_taken,
                       sum(s.size) filter (where s.fate = 'taken') over w as n_bytes,
                       count(*) filter (where s.fate = 'held') over w as n_held
                from sorted s window w as (order by s.o)),
            stop as (
                select coalesce(min(s.o), (select max(x.o) + 1 from source x)) as at
                from counted s
                where s.fate = 'taken' and (s.n_taken > straight_room
                                            or s.n_bytes + picked_bytes > byte_limit
                                               and (s.n_taken + cardinality(picked) > 1 or not is_first))
                   or s.fate = 'held' and s.n_held > held_limit - waiting)
            select max(stop.at),
                   coalesce(array_agg(s.o order by s.o) filter (where s.fate = 'taken'), '{}'),
                   array_agg(s.o) filter (where s.fate = 'taken' and s.key is not null),
                   array_agg(s.key) filter (where s.fate = 'taken' and s.key is not null),
                   array_agg(s.o) filter (where s.fate = 'held'),
                   array_agg(s.key) filter (where s.fate = 'held'),
                   array_agg(s.expiry) filter (where s.fate = 'held'),
                   array_agg(s.o) filter (where s.fate = 'delayed'),
                   array_agg(s.key) filter (where s.fate = 'delayed'),
                   array_agg(s.due) filter (where s.fate = 'delayed'),
                   array_agg(s.expiry) filter (where s.fate = 'delayed'),
                   count(*) filter (where s.fate = 'filtered'),
                   count(*) filter (where s.fate = 'filtered' and s.o = any (failed)),
                   count(*) filter (where s.fate = 'expired')
            into upto, taken, keyed, keyed_keys, held, held_keys, held_expiries, late, late_keys, late_dues,
                 late_expiries, n_filtered, n_failed, n_late
            from stop left join counted s on s.o < stop.at;
            upto := coalesce(upto, start);
        end if;
        exit when plain or first_base is null or cardinality(taken) * 2 >= straight_room
               or scanned < straight_room + ahead or ahead >= look_ahead;
    end loop;
    n_expired := n_expired + n_late;
    if held is not null or late is not null then
        insert into deferred (partition_id, group_id, "offset", key, state, due_at, expires_at)
        select p, g, d.o, d.key, 'held', '-infinity', d.expiry
        from unnest(held, held_keys, held_expiries) d (o, key, expiry)
        union all
        select p, g, d.o, d.key, 'delayed', d.due, d.expiry
        from unnest(late, late_keys, late_dues, late_expiries) d (o, key, due, expiry);
    end if;

    if upto = c.next_offset and cardinality(picked) = 0 and n_expired = 0 then
        outcome := case when seen_from is not null and start <> seen_from then 'again'
                        when not is_first and first_base is not null and waiting < held_limit then 'full'
                        when is_waiting or exists (
            select from deferred d where d.partition_id = p and d.group_id = g and d.lease_id is null)
            then 'held' else 'empty' end;
        more := outcome = 'again'; return next; return;
    end if;
    -- The row's lock alone is no proof where a shard can move: the cursor has to be where we found it.
    update cursors x
    set next_offset = upto, served_at = t, passed = x.passed + (upto - start), lost = x.lost + (start - c.next_offset),
        filtered = x.filtered + n_filtered, expired = x.expired + n_expired,
        filter_errors = x.filter_errors + n_failed
    where x.partition_id = p and x.group_id = g and x.next_offset = c.next_offset and x.epoch = c.epoch;
    if not found then
        raise exception 'cursor has moved' using errcode = '40001', detail = p::text;
    end if;
    n_lost := start - c.next_offset;

    if mode <> 'key' then
        keyed := null; keyed_keys := null;
    else
        select coalesce(keyed, '{}') || k.offsets, coalesce(keyed_keys, '{}') || k.keys into keyed, keyed_keys
        from keys_taken(p, g, first_base, last_base, start, case when plain then upto else start end, picked) k;
    end if;
    if plain and upto > start then
        insert into leases (partition_id, group_id, id, deadline, owner, pending, offsets, keys)
        values (p, g, lease, ends, who, int8multirange(int8range(start, upto)), keyed, keyed_keys);
    elsif cardinality(picked || taken) > 0 then
        insert into leases (partition_id, group_id, id, deadline, owner, pending, deferrals, offsets, keys)
        select p, g, lease, ends, who, range_agg(int8range(x.o, x.o + 1)), cardinality(picked) > 0, keyed, keyed_keys
        from unnest(picked || taken) x (o);
    else
        outcome := 'again'; more := true; return next; return;
    end if;
    if plain then
        return query
        select 'ok', is_more, lease, ends, c.epoch, greatest(x.base_offset, start), null::bigint[], x.published_at,
               case when s.whole then x.keys else x.keys[s.low:s.high] end,
               case when s.whole then x.meta else x.meta[s.low:s.high] end,
               case when s.whole then x.payloads else x.payloads[s.low:s.high] end, null::int[],
               n_dead, n_filtered, n_expired, n_lost
        from batches x
        cross join lateral (select greatest(start - x.base_offset, 0)::int + 1 as low,
                                   least(x.count, upto - x.base_offset)::int as high,
                                   x.base_offset >= start and x.base_offset + x.count <= upto as whole) s
        where x.partition_id = p and x.base_offset between first_base and last_base and x.base_offset < upto
        order by x.base_offset;
    else
        return query
        select 'ok', is_more, lease, ends, c.epoch, min(m.o), array_agg(m.o order by m.o), m.at,
               array_agg(m.key order by m.o), array_agg(m.meta order by m.o), array_agg(m.payload order by m.o),
               array_agg(m.attempt order by m.o), n_dead, n_filtered, n_expired, n_lost
        from (select w.o, coalesce(d.published_at, l.published_at) as at, coalesce(d.key, l.key) as key,
                     coalesce(d.meta, l.meta) as meta, coalesce(d.payload, l.payload) as payload,
                     coalesce(d.attempt, 0) + 1 as attempt
              from unnest(picked || taken) w (o)
              left join messages_at(p, picked || taken) l on l."offset" = w.o
              left join deferred d on d.partition_id = p and d.group_id = g and d."offset" = w.o) m
        group by m.at
        order by 6;
    end if;
end $$;
