-- Of the offsets from low to high (one past the last), the first whose message was published at or after this time;
-- high if none was. Times never fall with the offset, so halving finds it: a few dozen looks into the index at any size.
create or replace function offset_within(p bigint, at timestamptz, low bigint, high bigint)
returns bigint
language plpgsql stable as $$
declare
    middle bigint;
    base bigint;
    past bigint;
    t timestamptz;
begin
    while low < high loop
        middle := (low + high) / 2;
        select b.base_offset, b.base_offset + b.count, b.published_at into base, past, t
        from batches b where b.partition_id = p and b.base_offset <= middle
        order by b.base_offset desc limit 1;
        if t >= at then
            high := greatest(low, base);
        else
            low := least(high, greatest(middle + 1, past));
        end if;
    end loop;
    return low;
end $$;
