-- Where each partition of a topic should begin: at the first message not older than ``oldest``, and such that the
-- topic as a whole keeps its ``newest`` messages by publishedAt (then by partition). Null is no limit. Partitions that
-- begin there already are left out. Reads a few dozen batches per partition, whatever the topic holds.
create or replace function retained_from(topic bigint, oldest timestamptz, newest bigint)
returns table (partition_id bigint, first_offset bigint, retained_offset bigint)
language plpgsql stable as $$
#variable_conflict use_column
declare
    ids bigint[];
    firsts bigint[];
    lows bigint[];   -- in the end, what we are after
    highs bigint[];
    trial bigint[];
    base bigint;     -- messages below lows at the start
    excess bigint;   -- messages to drop, oldest first
    dropped bigint;
    step bigint;
    from_us bigint;  -- no more than the excess is older than this
    to_us bigint;    -- more than the excess is older than this
    at_us bigint;
begin
    select array_agg(l.id order by l.id), array_agg(l.first_offset order by l.id),
           array_agg(greatest(l.first_offset, e.past) order by l.id)
    into ids, firsts, highs
    from partitions l
    left join lateral (select b.base_offset + b.count as past from batches b where b.partition_id = l.id
                       order by b.base_offset desc limit 1) e on true
    where l.id between topic << 16 and (topic << 16) + 65535;
    if ids is null then
        return;
    end if;

    lows := firsts;
    if oldest is not null then
        select array_agg(offset_within(u.id, oldest, u.low, u.high) order by u.id) into lows
        from unnest(ids, lows, highs) u (id, low, high);
    end if;

    select sum(u.low), sum(u.high - u.low) - newest into base, excess from unnest(lows, highs) u (low, high);
    if newest <= 0 then
        lows := highs;
    elsif excess > 0 then
        -- Halve the time between the first and the last message until the oldest of the excess are told apart.
        select min((extract(epoch from b.published_at) * 1000000)::bigint),
               max((extract(epoch from b.published_at) * 1000000)::bigint) + 1
        into from_us, to_us
        from unnest(ids) u (id)
        cross join lateral (
            (select x.published_at from batches x where x.partition_id = u.id order by x.base_offset limit 1)
            union all
            (select x.published_at from batches x where x.partition_id = u.id order by x.base_offset desc limit 1)) b;
        dropped := 0;
        while dropped < excess and to_us - from_us > 1 loop
            at_us := from_us + (to_us - from_us) / 2;
            select array_agg(x.o order by x.id), sum(x.o) - base into trial, dropped
            from (select u.id, offset_within(u.id, 'epoch'::timestamptz + at_us * interval '1 microsecond', u.low, u.high) as o
                  from unnest(ids, lows, highs) u (id, low, high)) x;
            if dropped <= excess then
                from_us := at_us;
                lows := trial;
            else
                to_us := at_us;
                highs := trial;
                dropped := 0;
            end if;
        end loop;
        -- What is left to drop was published in the same microsecond: partition by partition.
        select excess - (sum(u.low) - base) into excess from unnest(lows) u (low);
        for i in 1 .. cardinality(ids) loop
            exit when excess <= 0;
            step := least(excess, highs[i] - lows[i]);
            lows[i] := lows[i] + step;
            excess := excess - step;
        end loop;
    end if;

    return query
    select u.id, u.first, u.low from unnest(ids, firsts, lows) u (id, first, low) where u.low > u.first;
end $$;
